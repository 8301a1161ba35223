"""Everything that rules ask of some triggers, read from the database: a constant number of statements a call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session

from operation_agent.segments import before as past
from operation_agent.segments import columns as people
from operation_agent.segments.before import Remembered
from operation_agent.segments.columns import Clusters, Columns, Rows, Table, Wanted
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule
from rules.evaluate import CompiledCondition

from . import facts
from .facts import Trigger


def load(
    session: Session, shop: Shop, triggers: Sequence[Trigger], table: Table, clusters: Clusters | None,
    rules: Iterable[LiveRule], *, remembered: Remembered | None = None,
) -> Columns:  # fmt: skip
    """What the conditions of `rules` look at, row i being trigger i. Rows of `table` and `clusters` beyond the triggers
    are others of the same call. `remembered`: what was known before the call took in its events; None: as it is
    stored."""
    conditions = [rule.condition for rule in rules]
    return load_for(session, shop, triggers, table, clusters, conditions, remembered=remembered)


def load_for(
    session: Session, shop: Shop, triggers: Sequence[Trigger], table: Table, clusters: Clusters | None,
    conditions: Iterable[CompiledCondition], *, remembered: Remembered | None = None,
) -> Columns:  # fmt: skip
    """As `load`, for conditions that stand elsewhere than in a rule's `if`."""
    wanted = Wanted.of(conditions)
    rows = Rows([one.customer_id for one in triggers], [one.random_key for one in triggers],
                [one.at for one in triggers])  # fmt: skip
    known = people.load(session, shop, rows, table.columns, clusters, wanted)
    known |= past.load(session, shop.id, rows, table, wanted, remembered)
    return facts.build(triggers, known, wanted.names)
