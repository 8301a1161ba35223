"""What rules may speak of: of every shop (`vocabulary`), and of one shop where somebody writes (`of_shop`)."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.segments.vocabulary import CLUSTER_LABEL, MEMBER
from operation_agent.segments.vocabulary import vocabulary as vocabulary
from rules.fields import Vocabulary

_MADE_BY_SHOP = ("segment.*", "strategy.*")

_MADE = text("""
SELECT 'segment.' || key AS field FROM segments WHERE shop_id = :shop AND state = 'active'
UNION ALL SELECT 'strategy.' || key FROM strategies WHERE shop_id = :shop
ORDER BY field
""")


def of_shop(session: Session, shop_id: UUID) -> Vocabulary:
    """`vocabulary`, closed: only segments and strategies that the shop has, only labels that clusters can have.

    For reading what somebody writes, so that a slip of the pen is an error; what was stored is read by `vocabulary`.
    """
    known = vocabulary()
    made = {row.field: MEMBER for row in session.execute(_MADE, {"shop": shop_id})}
    fields = {name: kind for name, kind in known.fields.items() if name not in _MADE_BY_SHOP}
    return Vocabulary({**fields, "cluster.label": CLUSTER_LABEL, **made}, known.events, known.aliases)
