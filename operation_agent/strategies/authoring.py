"""Writing strategies: a draft beside what is live, its publishing, and going back to an earlier version.

Whoever changes something says which `revision` of the strategy they looked at; when somebody else was faster, nothing
happens and they are told (Conflict). Publishing gives a new version to the rules that changed and to no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.approvals import approvals
from operation_agent.approvals.approval import Approval, fingerprint
from operation_agent.kit.errors import Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import audit
from operation_agent.store.shops import Shop
from rules.diff import Change, diff
from rules.strategy import Strategy

from . import funding, records, signoff, versions
from .records import StrategyRow
from .signoff import Audience
from .versions import Version

InFlight = Literal["finish", "exit"]
Reference = int | Literal["live", "draft"]


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did. `before` None: it is the first version. `rules_changed` have a new version, `rules_retired`
    are gone; with `in_flight` 'exit' the caller takes out who is under way in versions of them below those in
    `superseded` (`journeys.publishing.lead_out`)."""

    strategy: StrategyRow
    version: int
    before: int | None
    changes: tuple[Change, ...]
    rules_changed: tuple[UUID, ...]
    rules_retired: tuple[UUID, ...]
    superseded: tuple[tuple[UUID, int], ...]
    in_flight: InFlight


def create(session: Session, shop: Shop, strategy: Strategy, *, at: datetime, actor: str) -> StrategyRow:
    """Write a new strategy as a draft, with its budget. `at` is system time.

    Raises Rejected when the definition does not read, or its budget is in another currency than the shop's; Conflict
    when the key is taken.
    """
    definition = strategy.to_dict()
    strategy = records.read(definition)  # whoever built the value: what is stored is what can be read
    funding.check_currency(shop, strategy)
    strategy_id = new_id()
    made = session.execute(
        _INSERT,
        {
            "shop": shop.id, "id": strategy_id, "key": strategy.key, "name": orjson.dumps(strategy.name).decode(),
            "goal": strategy.goal, "definition": orjson.dumps(definition).decode(), "holdout": strategy.holdout,
            "at": at,
        },
    ).scalar()  # fmt: skip
    if not made:
        raise Conflict(f"the shop has a strategy {strategy.key!r} already", where="key")
    budget_id = funding.fund(session, shop, strategy, None)
    session.execute(
        text("UPDATE strategies SET budget_id = :budget WHERE shop_id = :shop AND id = :id"),
        {"shop": shop.id, "id": strategy_id, "budget": budget_id},
    )
    versions.write_draft(session, shop.id, strategy_id, definition, at=at, actor=actor)
    versions.write_draft_rules(session, shop.id, strategy_id, None, strategy, at=at, actor=actor)
    _audit(session, shop, "strategy.created", strategy.key, at, actor, {"definition": definition})
    return records.find(session, shop.id, strategy.key)


def save_draft(
    session: Session, shop: Shop, key: str, strategy: Strategy, *, at: datetime, actor: str,
    expected_revision: int | None = None,
) -> StrategyRow:  # fmt: skip
    """Make `strategy` the draft of the strategy `key`; what is live goes on as it is. `at` is system time.

    Raises NotFound; Conflict for an archived strategy, or one changed since `expected_revision`; Rejected when the
    definition does not read, or has another key.
    """
    row = records.hold(session, shop.id, key, expected_revision=expected_revision)
    _refuse_archived(row)
    definition = strategy.to_dict()
    strategy = records.read(definition)
    if strategy.key != row.key:
        raise Rejected(f"this is {strategy.key!r}; a key is for ever, and here it is {row.key!r}", where="key")
    funding.check_currency(shop, strategy)
    live = versions.in_state(session, shop.id, row.id, "live")
    edited = versions.in_state(session, shop.id, row.id, "draft") or live
    before = records.read(live.definition) if live is not None else None
    versions.write_draft(session, shop.id, row.id, definition, at=at, actor=actor)
    versions.write_draft_rules(session, shop.id, row.id, before, strategy, at=at, actor=actor)
    if live is None:  # nothing else to show of it: its row shows the draft
        _show(session, shop, row.id, strategy, definition, row.budget_id, at)
    _count(session, shop, row.id)
    changes = compare(records.read(edited.definition) if edited is not None else None, strategy)
    _audit(session, shop, "strategy.edited", row.key, at, actor, {"changes": [asdict(one) for one in changes]})
    return records.find(session, shop.id, row.key)


def discard_draft(
    session: Session, shop: Shop, key: str, *, at: datetime, actor: str, expected_revision: int | None = None
) -> StrategyRow:
    """Forget the draft beside a live version. Raises NotFound; Conflict when there is none, or nothing but it."""
    row = records.hold(session, shop.id, key, expected_revision=expected_revision)
    if row.draft is None:
        raise _no_draft(row)
    if row.version is None:
        raise Conflict(f"strategy {row.key!r} was never published; archive it instead", code="state")
    versions.drop_draft(session, shop.id, row.id)
    _count(session, shop, row.id)
    _audit(session, shop, "strategy.draft_discarded", row.key, at, actor, {"version": row.draft})
    return records.find(session, shop.id, row.key)


def publish(
    session: Session, shop: Shop, key: str, *, at: datetime, actor: str, expected_revision: int | None = None,
    in_flight: InFlight = "finish", note: str = "", audience: Audience | None = None,
) -> Published:  # fmt: skip
    """Make the draft the version that counts; a strategy that was never published goes live. `at` is system time,
    `audience` as in `signoff.needs`.

    Raises NotFound; Conflict without a draft, when it changes nothing (code 'unchanged'), when it was edited since
    `expected_revision`, without the approval it needs (code 'approval_needed'), or with a budget below what is
    committed already.
    """
    row = records.hold(session, shop.id, key, expected_revision=expected_revision)
    _refuse_archived(row)
    draft = versions.in_state(session, shop.id, row.id, "draft")
    if draft is None:
        raise _no_draft(row)
    live, before, after, changes = _compare(session, shop, row, draft.definition)
    if live is not None and not changes:
        raise Conflict(f"the draft of {row.key!r} is the same as what is live", code="unchanged")
    needed = signoff.needs(session, shop, before, after, audience=audience)
    signoff.require(session, shop, row, after.to_dict(), needed, at=at)
    version = versions.publish_draft(session, shop.id, row.id, at=at, actor=actor, note=note)
    moved = _switch(session, shop, row, before, after, at=at, actor=actor)
    return _published(
        session, shop, row, live, version, changes, moved, verb="strategy.published", note=note, in_flight=in_flight,
        at=at, actor=actor,
    )  # fmt: skip


def roll_back(
    session: Session, shop: Shop, key: str, version: int, *, at: datetime, actor: str,
    expected_revision: int | None = None, in_flight: InFlight = "finish", note: str = "",
    audience: Audience | None = None,
) -> Published:  # fmt: skip
    """Publish the definition of an earlier `version` again, as a new version. A draft stays as it is.

    Raises NotFound for a version that is not there, Conflict where `publish` does and for what counts already.
    """
    row = records.hold(session, shop.id, key, expected_revision=expected_revision)
    _refuse_archived(row)
    earlier = versions.get(session, shop.id, row.id, version)
    if earlier.state == "draft":
        raise Conflict(f"version {version} is the draft; publish it instead", code="state")
    live, before, after, changes = _compare(session, shop, row, earlier.definition)
    if not changes:
        raise Conflict(f"version {version} of {row.key!r} is the same as what is live", code="unchanged")
    needed = signoff.needs(session, shop, before, after, audience=audience)
    signoff.require(session, shop, row, after.to_dict(), needed, at=at)
    number = versions.publish_again(session, shop.id, row.id, earlier, at=at, actor=actor, note=note)
    moved = _switch(session, shop, row, before, after, at=at, actor=actor)
    draft = versions.in_state(session, shop.id, row.id, "draft")
    if draft is not None:  # what it changes is now told from another version
        edited = records.read(draft.definition)
        versions.write_draft_rules(session, shop.id, row.id, after, edited, at=draft.edited_at, actor=draft.authors[-1])
    return _published(
        session, shop, row, live, number, changes, moved, verb="strategy.rolled_back", note=note, in_flight=in_flight,
        at=at, actor=actor, to=version,
    )  # fmt: skip


def ask_approval(
    session: Session, shop: Shop, key: str, *, at: datetime, actor: str, version: int | None = None,
    expected_revision: int | None = None, audience: Audience | None = None,
) -> Approval | None:  # fmt: skip
    """Ask for the yes that publishing the draft (or going back to `version`) needs; None when it needs none, or has
    it. `at` is system time. Raises NotFound, Conflict."""
    row = records.hold(session, shop.id, key, expected_revision=expected_revision)
    _refuse_archived(row)
    asked = (
        versions.get(session, shop.id, row.id, version)
        if version is not None
        else versions.in_state(session, shop.id, row.id, "draft")
    )
    if asked is None:
        raise _no_draft(row)
    _, before, after, _ = _compare(session, shop, row, asked.definition)
    needed = signoff.needs(session, shop, before, after, audience=audience)
    definition = after.to_dict()
    granted = approvals.is_granted(session, shop.id, signoff.KIND, str(row.id), fingerprint(definition), at)
    if needed is None or granted:
        return None
    return signoff.ask(session, shop, row, definition, needed, authors=asked.authors, at=at, actor=actor)


def at_version(session: Session, shop_id: UUID, row: StrategyRow, which: Reference) -> Version:
    """A version by number, or the live one, or the draft. Raises NotFound."""
    if isinstance(which, int):
        return versions.get(session, shop_id, row.id, which)
    found = versions.in_state(session, shop_id, row.id, which)
    if found is None:
        raise NotFound(f"strategy {row.key!r} has no {'draft' if which == 'draft' else 'live version'}", where=which)
    return found


def difference(
    session: Session, shop_id: UUID, row: StrategyRow, before: Reference, after: Reference
) -> tuple[Version | None, Version, tuple[Change, ...]]:
    """Two versions and what differs between them. Of a strategy that was never live, everything is new against live.
    Raises NotFound for a version there is not."""
    second = at_version(session, shop_id, row, after)
    if before == "live" and row.version is None:
        return None, second, tuple(diff(None, records.read(second.definition)))
    first = at_version(session, shop_id, row, before)
    return first, second, compare(records.read(first.definition), records.read(second.definition))


def live_strategy(session: Session, shop_id: UUID, key: str) -> Strategy | None:
    """What counts now under this key; None when nothing does."""
    found = session.execute(_LIVE, {"shop": shop_id, "key": key}).scalar()
    return records.read(found) if found is not None else None


def compare(before: Strategy | None, after: Strategy) -> tuple[Change, ...]:
    """What changes; nothing for what is new altogether."""
    return tuple(diff(before, after)) if before is not None else ()


# -- within a transaction that holds the strategy ---------------------------------------------------------------------


def _compare(
    session: Session, shop: Shop, row: StrategyRow, definition: dict[str, Any]
) -> tuple[Version | None, Strategy | None, Strategy, tuple[Change, ...]]:
    """What is live, as a version and as a strategy, what `definition` says, and what it changes."""
    live = versions.in_state(session, shop.id, row.id, "live")
    before = records.read(live.definition) if live is not None else None
    after = records.read(definition)
    return live, before, after, compare(before, after)


def _switch(
    session: Session, shop: Shop, row: StrategyRow, before: Strategy | None, after: Strategy, *, at: datetime,
    actor: str,
) -> versions.RuleChanges:  # fmt: skip
    """The rules, the budget and the strategy's own row follow `after`."""
    moved = versions.switch_rules(session, shop.id, row.id, before, after, at=at, actor=actor)
    budget_id = row.budget_id
    if before is None or before.budget != after.budget:  # else: what somebody set at the budget itself stays
        budget_id = funding.fund(session, shop, after, row.budget_id)
    _show(session, shop, row.id, after, after.to_dict(), budget_id, at)
    session.execute(
        text(
            "UPDATE strategies SET live_revision = live_revision + 1,"
            " started_at = COALESCE(started_at, CASE WHEN state = 'draft' THEN CAST(:started AS timestamptz) END),"
            " state = CASE state WHEN 'draft' THEN 'live' ELSE state END WHERE shop_id = :shop AND id = :id"
        ),
        {"shop": shop.id, "id": row.id, "started": at + shop.clock_offset},
    )
    _count(session, shop, row.id)
    return moved


def _published(
    session: Session, shop: Shop, row: StrategyRow, live: Version | None, version: int, changes: Sequence[Change],
    moved: versions.RuleChanges, *, verb: str, note: str, in_flight: InFlight, at: datetime, actor: str, **more: Any,
) -> Published:  # fmt: skip
    after = records.find(session, shop.id, row.key)
    before = live.version if live is not None else None
    detail = {
        "before": before, "after": version, "state": {"before": row.state, "after": after.state}, "note": note,
        "in_flight": in_flight, "changes": [asdict(one) for one in changes], **more,
    }  # fmt: skip
    _audit(session, shop, verb, row.key, at, actor, detail)
    superseded = (*moved.changed, *((rule, last + 1) for rule, last in moved.retired))
    ids = [tuple(rule for rule, _ in some) for some in (moved.changed, moved.retired)]
    return Published(after, version, before, tuple(changes), ids[0], ids[1], superseded, in_flight)


def _show(
    session: Session, shop: Shop, strategy_id: UUID, strategy: Strategy, definition: dict[str, Any],
    budget_id: UUID | None, at: datetime,
) -> None:  # fmt: skip
    session.execute(
        text(
            "UPDATE strategies SET name = CAST(:name AS jsonb), goal = :goal, definition = CAST(:definition AS jsonb),"
            " holdout = :holdout, budget_id = CAST(:budget AS uuid), updated_at = :at"
            " WHERE shop_id = :shop AND id = :id"
        ),
        {
            "shop": shop.id, "id": strategy_id, "name": orjson.dumps(strategy.name).decode(), "goal": strategy.goal,
            "definition": orjson.dumps(definition).decode(), "holdout": strategy.holdout, "budget": budget_id,
            "at": at,
        },
    )  # fmt: skip


def _count(session: Session, shop: Shop, strategy_id: UUID) -> None:
    session.execute(
        text("UPDATE strategies SET revision = revision + 1 WHERE shop_id = :shop AND id = :id"),
        {"shop": shop.id, "id": strategy_id},
    )


def _refuse_archived(row: StrategyRow) -> None:
    if row.state == "archived":
        raise Conflict(f"strategy {row.key!r} is archived; make a new one from its definition", code="state")


def _no_draft(row: StrategyRow) -> Conflict:
    return Conflict(f"strategy {row.key!r} has no draft; nothing was edited since version {row.version}", code="draft")


def _audit(session: Session, shop: Shop, verb: str, key: str, at: datetime, actor: str, detail: dict[str, Any]) -> None:
    audit.record(session, shop.id, at=at, actor=actor, verb=verb, subject=f"strategy:{key}", detail=detail)


_INSERT = text("""
INSERT INTO strategies (shop_id, id, key, name, goal, state, definition, holdout, created_at, updated_at)
VALUES (:shop, :id, :key, CAST(:name AS jsonb), :goal, 'draft', CAST(:definition AS jsonb), :holdout, :at, :at)
ON CONFLICT (shop_id, key) DO NOTHING RETURNING 1
""")
_LIVE = text("""
SELECT v.definition FROM strategies AS s
JOIN strategy_versions AS v ON v.shop_id = s.shop_id AND v.strategy_id = s.id AND v.state = 'live'
WHERE s.shop_id = :shop AND s.key = :key
""")
