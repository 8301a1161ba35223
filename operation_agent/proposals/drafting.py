"""Making drafts of what was chosen, over and over without a heap of old ones: a draft that nobody has touched since the
agent wrote it is kept up to date, or archived when it is not chosen any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict
from operation_agent.kit.money import minor_digits
from operation_agent.store.shops import Shop
from operation_agent.strategies import authoring, lifecycle
from operation_agent.strategies.generator import Draft
from operation_agent.strategies.library import library
from operation_agent.strategies.predictor import Prediction

Kind = tuple[str, UUID, float | None]
"""Template, lineage and depth: what makes two proposals the same one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What there is already. `ours`: untouched drafts of earlier runs, their strategies' keys; `taken`: (template,
    lineage) that somebody has made their own, lineage None: a template that runs for everybody."""

    ours: Mapping[Kind, str]
    taken: frozenset[tuple[str, UUID | None]]

    def is_taken(self, draft: Draft) -> bool:
        return not self.taken.isdisjoint({(draft.template, None), (draft.template, draft.cluster.lineage)})


_PROPOSED = text("""
SELECT DISTINCT ON (s.id) p.template, p.lineage_id, p.depth, s.key,
       s.state = 'draft' AND v.authors = ARRAY[r.made_by] AS is_untouched
FROM proposals p
JOIN proposal_runs r ON r.shop_id = p.shop_id AND r.id = p.run_id
JOIN strategies s ON s.shop_id = p.shop_id AND s.id = p.strategy_id
LEFT JOIN strategy_versions v ON v.shop_id = s.shop_id AND v.strategy_id = s.id AND v.state = 'draft'
WHERE p.shop_id = :shop AND s.state <> 'archived'
ORDER BY s.id, p.id DESC
""")
_RUNNING = text("SELECT key FROM strategies WHERE shop_id = :shop AND state IN ('live', 'paused')")


def standing(session: Session, shop: Shop) -> Standing:
    rows = session.execute(_PROPOSED, {"shop": shop.id}).all()
    running = set(session.execute(_RUNNING, {"shop": shop.id}).scalars())
    everywhere = {(name, None) for name, template in library().items() if template.key in running}
    theirs = {(row.template, row.lineage_id) for row in rows if not row.is_untouched}
    ours = {(row.template, row.lineage_id, row.depth): row.key for row in rows if row.is_untouched}
    return Standing(ours, frozenset(everywhere | theirs))


def kind_of(draft: Draft) -> Kind:
    return draft.template, draft.cluster.lineage, draft.depth


def write(
    session: Session, shop: Shop, draft: Draft, known: Standing, *, at: datetime, actor: str
) -> tuple[Draft, UUID]:
    """The draft as a strategy of the shop: made, or ours brought up to date. With the key it has, and its id."""
    key = known.ours.get(kind_of(draft))
    if key is None:
        draft = _keyed(draft, _free_key(session, shop, draft.strategy.key))
        return draft, lifecycle.create(session, shop, draft.strategy, at=at, actor=actor).id
    draft = _keyed(draft, key)
    row = lifecycle.find(session, shop.id, key)
    if row.definition != draft.strategy.to_dict():
        row = authoring.save_draft(session, shop, key, draft.strategy, at=at, actor=actor)
    return draft, row.id


def withdraw(
    session: Session, shop: Shop, known: Standing, chosen: Iterable[Draft], *, at: datetime, actor: str
) -> None:
    """Archive our drafts that are not chosen any more. Of earlier runs nothing stays 'drafted'."""
    kept = {kind_of(draft) for draft in chosen}
    for kind, key in known.ours.items():
        if kind not in kept:
            lifecycle.move(session, shop, key, "archived", at=at, actor=actor)
    session.execute(
        text("UPDATE proposals SET state = 'dismissed' WHERE shop_id = :shop AND state = 'drafted'"), {"shop": shop.id}
    )


def start(session: Session, shop: Shop, key: str, prediction: Prediction, *, at: datetime, actor: str) -> bool:
    """Let it go live where `shop.settings["proposals"]["auto_start_below"]` (units of currency) allows its liability;
    False otherwise, and when going live needs a person's yes."""
    limit = (shop.settings.get("proposals") or {}).get("auto_start_below")
    if limit is None or prediction.liability > float(Decimal(str(limit)) * 10 ** minor_digits(shop.currency)):
        return False
    try:
        lifecycle.move(session, shop, key, "live", at=at, actor=actor)
    except Conflict:
        return False
    return True


def _keyed(draft: Draft, key: str) -> Draft:
    return replace(draft, strategy=replace(draft.strategy, key=key))


def _free_key(session: Session, shop: Shop, key: str) -> str:
    """`key`, or with the number of its turn: strategies that were withdrawn keep theirs."""
    taken = session.execute(
        text("SELECT key FROM strategies WHERE shop_id = :shop AND starts_with(key, :key)"),
        {"shop": shop.id, "key": key},
    )
    used = set(taken.scalars())
    turns = (key if number == 1 else f"{key}-r{number}" for number in range(1, len(used) + 2))
    return next(turn for turn in turns if turn not in used)
