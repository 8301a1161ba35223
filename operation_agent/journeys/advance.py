"""Leading customers on through their arms: by what they did (`on_events`), and by the time that passed (`due`).

Whatever is processed late happens at its own time: `course` says in which order. Everything about one customer is done
under the lock of its row, which `events` hold from resolving identities on; so two workers never lead one customer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.actions import writing
from operation_agent.clustering import membership
from operation_agent.customers import features
from operation_agent.decision import facts, reading
from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import Trigger
from operation_agent.events.event import Event
from operation_agent.events.queue import event_of
from operation_agent.store.shops import Shop
from rules import evaluate
from rules.program import Branch, Wait

from . import leaving, pinned, runs
from .course import Happening, Seen, happening
from .pinned import Pinned, Version, Way
from .runs import COLUMNS, Walker

BATCH = 1000
"""Runs that are led on in one transaction."""

TOPIC = "journeys.advance"


@dataclass(frozen=True, slots=True)
class Led:
    """What one call did. `taken`: runs that were looked at; `latest`: how late the latest of them was."""

    taken: int = 0
    actions: int = 0
    latest: timedelta = timedelta(0)


# -- who ----------------------------------------------------------------------------------------------------------

_TOUCHED = text(f"""
SELECT {COLUMNS} FROM runs r
WHERE r.shop_id = :shop AND r.customer_id = ANY(CAST(:customers AS uuid[])) AND r.state = 'waiting'
  AND (r.events && CAST(:types AS text[]) OR r.exit_on && CAST(:types AS text[]))
ORDER BY r.id FOR UPDATE
""")  # noqa: S608


def on_events(
    session: Session, shop: Shop, customers: Mapping[UUID, datetime], types: Collection[str], *, recorded_at: datetime
) -> Led:
    """Lead on the runs of customers who did something of `types`, each up to the moment of its newest event.

    `customers`: that moment (shop time). Call it when the events stand in the timeline, with the customers locked, as
    agent.observe does. `recorded_at` is system time.
    """
    if not customers:
        return Led()
    values = {"shop": shop.id, "customers": list(customers), "types": sorted(types)}
    rows = session.execute(_TOUCHED, values).all()
    return _lead(session, shop, [Walker.of(row, customers[row.customer_id]) for row in rows], recorded_at)


_BEGUN = text(f"""
SELECT {COLUMNS} FROM runs r
WHERE r.shop_id = :shop AND r.state = 'waiting' AND r.decision_id = ANY(CAST(:decisions AS uuid[]))
  AND r.customer_id = ANY(CAST(:customers AS uuid[]))
ORDER BY r.id FOR UPDATE
""")  # noqa: S608


def catch_up(
    session: Session, shop: Shop, decisions: Iterable[Decision], customers: Mapping[UUID, datetime], *,
    recorded_at: datetime,
) -> Led:  # fmt: skip
    """Lead on the runs that `decisions` have just begun, by what is known already of what came after: up to the moment
    of each customer's newest event, or of the decision. `recorded_at` is system time."""
    begun = {one.id: one for one in decisions if one.arm is not None and _stops(one.arm.steps)}
    if not begun:
        return Led()
    who = sorted({one.customer_id for one in begun.values()})
    rows = session.execute(_BEGUN, {"shop": shop.id, "decisions": list(begun), "customers": who}).all()
    walkers = []
    for row in rows:
        at = begun[row.decision_id].decided_at
        walkers.append(Walker.of(row, max(at, customers.get(row.customer_id, at))))
    return _lead(session, shop, walkers, recorded_at)


def _stops(steps: Sequence[Any]) -> bool:
    return any(isinstance(step, Wait | Branch) for step in steps)


# the customer's row is what all work on a customer is serialised by; those somebody is at are led on by the next call
_DUE = text(f"""
SELECT {COLUMNS} FROM runs r JOIN customers c ON c.shop_id = r.shop_id AND c.id = r.customer_id
WHERE r.shop_id = :shop AND r.state = 'waiting' AND r.due_at <= :until
ORDER BY r.due_at, r.dedupe_key LIMIT :limit
FOR NO KEY UPDATE OF c SKIP LOCKED FOR UPDATE OF r SKIP LOCKED
""")  # noqa: S608

_ERASED = text("""
UPDATE runs r SET state = 'exited', exit_reason = 'customer_erased', left_at = r.due_at, due_at = NULL, events = '{}',
  updated_at = :at
WHERE r.shop_id = :shop AND r.state = 'waiting' AND r.due_at <= :until
  AND NOT EXISTS (SELECT 1 FROM customers c WHERE c.shop_id = r.shop_id AND c.id = r.customer_id)
""")


def due(session: Session, shop: Shop, *, at: datetime, limit: int = BATCH) -> Led:
    """Lead on the runs whose wait is over or whose branch is due, at most `limit`; `at` is system time.

    Fewer than `limit`: there are no more, or others are at them.
    """
    until = settled_until(session, shop, at)
    if until is None:
        return Led()
    rows = session.execute(_DUE, {"shop": shop.id, "until": until, "limit": limit}).all()
    if len(rows) < limit:
        session.execute(_ERASED, {"shop": shop.id, "until": until, "at": at})
    led = _lead(session, shop, [Walker.of(row, until) for row in rows], at)
    latest = max((until - row.due_at for row in rows), default=timedelta(0))
    return Led(led.taken, led.actions, latest)


PATIENCE = timedelta(seconds=60)
"""How long a sandbox's waits leave precedence to events that are still to be taken in."""

# the head of a partition is its oldest event, and there are few partitions
_OLDEST = text("""
SELECT min(q.received_at) FROM (SELECT DISTINCT partition FROM event_queue WHERE shop_id = :shop) p
CROSS JOIN LATERAL (SELECT received_at FROM event_queue
                    WHERE shop_id = :shop AND partition = p.partition ORDER BY seq LIMIT 1) q
""")


def settled_until(session: Session, shop: Shop, at: datetime) -> datetime | None:
    """The shop time up to which everything that was received has been taken in: no wait ends on time-out while the
    event that would end it stands in the queue. None: nothing may be led on now. `at` is system time.

    In a shop whose time is the system's that is the receipt of the oldest event in the queue. A sandbox's clock jumps
    over the events that were told before it did, so there the queue must be empty; but nobody waits for ever.
    """
    oldest = session.execute(_OLDEST, {"shop": shop.id}).scalar()
    if oldest is None:
        return at + shop.clock_offset
    if shop.sandbox:
        return None if at - oldest < PATIENCE else at + shop.clock_offset
    return min(at, oldest)


# -- how ----------------------------------------------------------------------------------------------------------


def _lead(session: Session, shop: Shop, walkers: Sequence[Walker], at: datetime) -> Led:
    """Everything that happens to these runs until each one's `until`, in rounds: all branches of a round at once."""
    if not walkers:
        return Led()
    versions = pinned.load(session, shop, {one.version for one in walkers})
    walking = [one for one in walkers if _way(one, versions) is not None]
    known = runs.known_events(session, shop.id, walking, [_types(one, versions) for one in walking])
    fitting = _fitting(session, shop, walking, versions, known)
    open_ = walking
    while open_:
        open_ = [one for one in open_ if _step(one, versions, known.get(one.row.id, ()), fitting)]
        _branch(session, shop, open_, versions)
    return _write(session, shop, walkers, versions, at)


def _way(walker: Walker, versions: Mapping[Version, Pinned]) -> Way | None:
    """The arm it walks through; who has none any more, or whose strategy was ended, leaves."""
    version = versions.get(walker.version)
    way = version.ways.get(walker.row.arm) if version is not None else None
    if way is None or version is None or version.is_over:
        walker.leave("strategy_ended" if version is not None and version.is_over else "version_lost", walker.until)
        return None
    return way


def _of(walker: Walker, versions: Mapping[Version, Pinned]) -> Way:
    return versions[walker.version].ways[walker.row.arm]


def _types(walker: Walker, versions: Mapping[Version, Pinned]) -> set[str]:
    return {*_of(walker, versions).events, *walker.row.exit_on}


Fitting = Callable[[Version, str, str], Callable[[Seen], bool]]


def _step(walker: Walker, versions: Mapping[Version, Pinned], known: Sequence[Seen], fitting: Fitting) -> bool:
    """Lead one run on as far as no branch has to be looked at; whether it has come to one that is due."""
    way = _of(walker, versions)
    while walker.spot is not None:
        fits = fitting(walker.version, walker.row.arm, walker.spot.path)
        next_ = happening(walker.spot, walker.bounds, known, walker.until, fits)
        if next_ is None:
            return False
        if next_.kind == "branch":
            return True
        _happen(walker, way, next_)
    return False


def _happen(walker: Walker, way: Way, what: Happening) -> None:
    if what.kind == "exit":
        assert what.seen is not None
        walker.leave(what.seen.type, what.at)
    else:
        walker.go(way, what.kind == "event", what.at)


def _branch(session: Session, shop: Shop, walkers: Sequence[Walker], versions: Mapping[Version, Pinned]) -> None:
    """Look at the branch that each of them stands at, as of its moment, and send it one way or the other."""
    if not walkers:
        return
    moments = [one.spot.due_at for one in walkers if one.spot is not None]
    table = features.compute(
        session, shop.id, [(one.row.customer_id, at) for one, at in zip(walkers, moments, strict=True)]
    )
    clusters = membership.assign(session, shop.id, table).clusters
    triggers = [
        Trigger(one.row.customer_id, one.row.random_key, one.row.trigger["type"], one.event(), at)
        for one, at in zip(walkers, moments, strict=True)
    ]
    asked: dict[tuple[Version, str, str], list[int]] = {}
    for index, one in enumerate(walkers):
        asked.setdefault((one.version, one.row.arm, one.path), []).append(index)
    conditions = {key: versions[key[0]].ways[key[1]].branches[key[2]] for key in asked}
    columns = reading.load_for(session, shop, triggers, table, clusters, conditions.values())
    for key, indexes in asked.items():
        matched = conditions[key].evaluate(columns, len(walkers)).matched
        for index in indexes:
            walkers[index].go(_of(walkers[index], versions), bool(matched[index]), moments[index])


_EVENTS = text("SELECT * FROM events WHERE shop_id = :shop AND id = ANY(CAST(:ids AS uuid[]))")


def _fitting(
    session: Session, shop: Shop, walkers: Sequence[Walker], versions: Mapping[Version, Pinned],
    known: Mapping[UUID, Sequence[Seen]],
) -> Fitting:  # fmt: skip
    """Which of the known events meet the `where` and the `name` of which wait."""
    asked: dict[tuple[Version, str], set[UUID]] = {}
    for walker in walkers:
        picky = _of(walker, versions).picky
        types = {name for wait in picky.values() for name in wait.events}
        if types:
            seen = {one.event_id for one in known.get(walker.row.id, ()) if one.type in types}
            asked.setdefault((walker.version, walker.row.arm), set()).update(seen)
    ids = sorted(set().union(*asked.values())) if asked else []
    rows: Sequence[Row[Any]] = session.execute(_EVENTS, {"shop": shop.id, "ids": ids}).all() if ids else []
    events = [event_of(row) for row in rows]
    met = {
        (version, arm, path): _meeting(versions[version].ways[arm], path, wait, events)
        for version, arm in asked
        for path, wait in versions[version].ways[arm].picky.items()
    }

    def fits(version: Version, arm: str, path: str) -> Callable[[Seen], bool]:
        found = met.get((version, arm, path))
        return _anything if found is None else lambda seen: seen.event_id in found

    return fits


def _anything(_seen: Seen) -> bool:
    return True


def _meeting(way: Way, path: str, wait: Wait, events: Sequence[Event]) -> set[UUID]:
    named = [one for one in events if wait.name is None or one.name == wait.name]
    condition = way.conditions.get(path)
    if condition is None or not named:
        return {one.id for one in named}
    nobody = UUID(int=0)
    triggers = [Trigger(nobody, nobody, one.type, one, one.occurred_at) for one in named]
    moments = np.array([one.occurred_at.timestamp() for one in named], np.float64)
    columns = facts.build(triggers, {evaluate.AT: moments}, condition.needs)
    matched = condition.evaluate(columns, len(named)).matched
    return {one.id for one, fits in zip(named, matched, strict=True) if fits}


def _write(
    session: Session, shop: Shop, walkers: Sequence[Walker], versions: Mapping[Version, Pinned], at: datetime
) -> Led:
    """Where everybody stands now, what is called off, what is planned."""
    runs.write(session, shop.id, walkers, at=at)
    left = [
        (one.row.id, one.left_at, leaving.reason_of(one.exit_reason, one.row.exit_on))
        for one in walkers
        if one.exit_reason is not None and one.left_at is not None
    ]
    leaving.call_off(session, shop.id, left, at=at)
    segments = [
        segment for one in walkers if one.version in versions for segment in one.segments(versions[one.version])
    ]
    written = writing.write(session, shop, segments, created_at=at)
    return Led(len(walkers), written.count)
