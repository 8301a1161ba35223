"""The loop on one page: observe → group → decide → act → learn.

Each function is one transaction's work; the caller (a Celery task, a backtest) opens it and commits. Sending is
not here: `actions.executor` does it in three steps of its own, because a crash may fall between any two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.actions import planning, reconciler
from operation_agent.campaigns import chunks, people, preparation
from operation_agent.campaigns.chunks import Chunk
from operation_agent.campaigns.records import Campaign
from operation_agent.clustering import membership
from operation_agent.customers import features, history, identity
from operation_agent.customers.groups import Moved
from operation_agent.customers.identity import Resolved
from operation_agent.decision import batch, facts
from operation_agent.decision.engine import Decision
from operation_agent.decision.facts import Trigger
from operation_agent.events.event import PAST, Event
from operation_agent.feedback import ledger, outcomes
from operation_agent.journeys import advance as journeys
from operation_agent.journeys import watches
from operation_agent.kit.ids import as_uuid
from operation_agent.privacy import requests as privacy
from operation_agent.segments import active, before
from operation_agent.segments import membership as segment_membership
from operation_agent.segments.before import Remembered
from operation_agent.segments.columns import Wanted
from operation_agent.store.session import asking_once
from operation_agent.store.shops import Shop
from operation_agent.storefront import connection, mirror, shop_record
from operation_agent.strategies import live

LATE = timedelta(hours=24)
"""An event older than this, in shop time, enters history and features but sets nothing off."""

People = dict[UUID, Resolved | None]


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _in_one_state(
    work: Callable[Concatenate[Session, _Arguments], _Result],
) -> Callable[Concatenate[Session, _Arguments], _Result]:
    """Let the whole of `work` go by the rules and segments as they were at its first look."""

    @wraps(work)
    def working(session: Session, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with asking_once(session):
            return work(session, *args, **kwargs)

    return working


@dataclass(frozen=True, slots=True)
class Observed:
    """What one call did, for logs and metrics."""

    events: int
    triggers: int
    decisions: int
    actions: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """What one call did: runs led on and watches whose time was up, and what came of them. `latest`: how late the
    latest run was."""

    runs: int
    watches: int
    decisions: int
    actions: int
    latest: timedelta


@_in_one_state
def observe(session: Session, shop: Shop, events: Sequence[Event], *, recorded_at: datetime) -> Observed:
    """Take in `events` (of one partition, in order of arrival), lead on who waited for them, decide what they set off.

    `recorded_at` is system time. Writes identities, history, outcomes, ledger, features, cluster membership, runs,
    decisions, actions and wake-ups; nothing is sent.
    """
    people: People = identity.resolve(session, shop, events)
    wanted = Wanted.of(rule.condition for rule in live.live_rules(session, shop.id))
    remembered = before.remember(session, shop.id, _touched(people), wanted) if wanted.asks_before else None
    mirror.apply(session, shop, events)
    shop_record.apply(session, shop, events, at=recorded_at)
    history.apply(session, shop, events, people)
    ledger.apply(session, shop, events, people)
    outcomes.apply(session, shop, events, people)
    _settle_unknown(session, shop, events, recorded_at)
    connection.apply(session, shop, events, at=recorded_at)
    privacy.note(session, shop, events, at=recorded_at)
    newest = _newest(events, people)
    led = journeys.on_events(session, shop, newest, {event.type for event in events}, recorded_at=recorded_at)
    begun = _triggers(shop, events, people, watches.watching_types(session, shop.id), recorded_at)
    watches.on_events(session, shop, begun, newest)
    triggers = _triggers(shop, events, people, live.triggering_types(session, shop.id), recorded_at)
    matters = wanted.asks_before or bool(active.segments(session, shop.id) or live.watched_groups(session, shop.id))
    others = _others(events, people, triggers, only_newest=not matters)
    quiet = _told_as_history(events, people)
    if quiet:
        others, quiet = _brought_forward(session, shop, others, quiet)
    decisions, actions = decide(
        session, shop, triggers, others, recorded_at=recorded_at, remembered=remembered, newest=newest, quiet=quiet
    )
    return Observed(len(events), len(triggers), decisions, actions + led.actions)


@_in_one_state
def advance(session: Session, shop: Shop, *, recorded_at: datetime, limit: int = journeys.BATCH) -> Advanced:
    """Lead on whose wait is over or who stands at a branch, at most `limit`, and decide about goals missed by now.

    `recorded_at` is system time. Fewer than `limit` of both: nothing more is due, or others are at it.
    """
    led = journeys.due(session, shop, at=recorded_at, limit=limit)
    missed, taken = watches.due(session, shop, at=recorded_at, limit=limit)
    decisions, actions = decide(session, shop, missed, (), recorded_at=recorded_at) if missed else (0, 0)
    return Advanced(led.taken, taken, decisions, actions + led.actions, led.latest)


@_in_one_state
def regroup(
    session: Session, shop: Shop, customer_ids: Sequence[UUID], as_of: datetime, *, recorded_at: datetime
) -> tuple[int, int]:
    """Look again at customers whom time, a fit or another definition may have moved from one group to another, as of an
    instant of shop time, and decide what that sets off. Returns the number of decisions and of planned actions."""
    held = identity.lock(session, shop.id, customer_ids)
    return decide(session, shop, [], [(one, as_of) for one in held], recorded_at=recorded_at)


def decide(
    session: Session,
    shop: Shop,
    triggers: Sequence[Trigger],
    others: Sequence[tuple[UUID, datetime]],
    *,
    recorded_at: datetime,
    remembered: Remembered | None = None,
    newest: Mapping[UUID, datetime] | None = None,
    quiet: frozenset[tuple[UUID, datetime]] = frozenset(),
) -> tuple[int, int]:
    """Group and decide: one pass of features over the triggers, and over `others`, who only need theirs renewed.

    Who comes into a segment or a cluster by it, or leaves one, is a trigger too, in the same transaction. `remembered`:
    what was known before the events were taken in; `newest`: when each customer did something last in this call, so
    that what came after a decision counts in its run. `quiet`: moments that are told as history, whose moves set
    nothing off. Returns the number of decisions and of planned actions.
    """
    targets = [*((trigger.customer_id, trigger.at) for trigger in triggers), *others]
    table = features.compute(session, shop.id, targets)
    if remembered is None:
        wanted = Wanted.of(rule.condition for rule in live.live_rules(session, shop.id))
        remembered = before.remember(session, shop.id, [customer_id for customer_id, _ in targets], wanted)
    placed = membership.update(session, shop.id, table)
    moved = [*placed.moved, *segment_membership.update(session, shop, table, placed.clusters)]
    features.store(session, shop.id, table)
    set_off = _watched(session, shop, [one for one in moved if (one.customer_id, one.at) not in quiet], recorded_at)
    rows = [*range(len(triggers)), *(one.row for one in set_off), *range(len(triggers), len(table))]
    known = replace(remembered, clusters=[placed.before[row] for row in rows] if placed.before else None)
    decisions, actions = _act_on(
        session, shop, [*triggers, *map(facts.of_move, set_off)], table.take(rows) if set_off else table,
        [placed.clusters[row] for row in rows], recorded_at, known, newest,
    )  # fmt: skip
    return len(decisions), actions


@_in_one_state
def run_chunk(session: Session, shop: Shop, campaign: Campaign, chunk: Chunk, *, recorded_at: datetime) -> int:
    """Decide a campaign's rules for one chunk of its audience, and close the chunk. Returns the decisions made.

    Nobody did anything, so what is remembered of features and clusters stays: the clustering job renews it. A campaign
    whose rules were changed meanwhile is prepared again for what is left of it. `recorded_at` is system time.
    """
    if not preparation.still_holds(session, shop, campaign, at=recorded_at):
        return 0
    asked = people.of_chunk(session, shop, campaign, chunk)
    decisions: list[Decision] = []
    if asked.triggers:
        decisions = batch.decide(
            session, shop, asked.triggers, asked.table, asked.clusters, recorded_at=recorded_at,
            cutoffs=campaign.lines, campaign_id=campaign.id,
        )  # fmt: skip
    actions = planning.plan(session, shop, decisions, created_at=recorded_at)
    actions += journeys.catch_up(session, shop, decisions, {}, recorded_at=recorded_at).actions
    chunks.close(session, shop.id, campaign, chunk, decisions, customers=len(asked), actions=actions, at=recorded_at)
    return len(decisions)


def _act_on(
    session: Session,
    shop: Shop,
    triggers: Sequence[Trigger],
    table: features.FeatureTable,
    clusters: Sequence[Any],
    recorded_at: datetime,
    remembered: Remembered | None = None,
    newest: Mapping[UUID, datetime] | None = None,
) -> tuple[list[Decision], int]:
    if not triggers:
        return [], 0
    decisions = batch.decide(
        session, shop, triggers, table, clusters, recorded_at=recorded_at, remembered=remembered
    )  # fmt: skip
    actions = planning.plan(session, shop, decisions, created_at=recorded_at)
    led = journeys.catch_up(session, shop, decisions, newest or {}, recorded_at=recorded_at)
    return decisions, actions + led.actions


def _settle_unknown(session: Session, shop: Shop, events: Sequence[Event], recorded_at: datetime) -> None:
    """A provider that reports on a message has it: an action whose outcome was unknown was sent."""
    proofs: dict[str, list[reconciler.Evidence]] = {}
    for event in events:
        action_id = as_uuid(event.properties.get("action_id")) if event.type.startswith("email.") else None
        if action_id is not None:
            seen = reconciler.Evidence(action_id, event.properties.get("provider_ref"), event.occurred_at)
            proofs.setdefault(event.source, []).append(seen)
    for provider, evidence in proofs.items():
        reconciler.accept_evidence(session, shop, provider, evidence, at=recorded_at)


def _triggers(
    shop: Shop, events: Sequence[Event], people: People, wanted: frozenset[str], recorded_at: datetime
) -> list[Trigger]:
    """One of each event of the types `wanted` that somebody did lately, and that is not told as history."""
    oldest = recorded_at + shop.clock_offset - LATE
    made = []
    for event in events:
        person = people.get(event.id)
        if person is None or event.type not in wanted or event.context.get(PAST):
            continue
        if event.occurred_at >= oldest:
            made.append(
                Trigger(
                    customer_id=person.customer_id,
                    random_key=person.random_key,
                    type=event.type,
                    event=event,
                    at=event.occurred_at,
                    event_received_at=event.received_at,
                )
            )
    return made


def _watched(session: Session, shop: Shop, moved: Sequence[Moved], recorded_at: datetime) -> list[Moved]:
    """Those that some live rule waits for; none that happened long ago."""
    watched = live.watched_groups(session, shop.id) if moved else frozenset()
    oldest = recorded_at + shop.clock_offset - LATE
    return [one for one in moved if (one.group, one.way) in watched and one.at >= oldest]


def _told_as_history(events: Sequence[Event], people: People) -> frozenset[tuple[UUID, datetime]]:
    """Each customer's moments of which nothing but history is told."""
    found: dict[tuple[UUID, datetime], bool] = {}
    for event in events:
        person = people.get(event.id)
        if person is not None:
            moment = (person.customer_id, event.occurred_at)
            found[moment] = found.get(moment, True) and bool(event.context.get(PAST))
    return frozenset(moment for moment, is_past in found.items() if is_past)


def _brought_forward(
    session: Session, shop: Shop, others: Sequence[tuple[UUID, datetime]], quiet: frozenset[tuple[UUID, datetime]]
) -> tuple[list[tuple[UUID, datetime]], frozenset[tuple[UUID, datetime]]]:
    """History that is told after features were computed as of a later moment belongs in them: they are computed again
    as of that moment, and what that moves sets off as little as the history itself."""
    known = features.stored_at(session, shop.id, list({customer_id for customer_id, _ in quiet}))
    renewed = {
        one: (one[0], max(one[1], known.get(one[0], one[1]))) if one in quiet else one for one in dict.fromkeys(others)
    }
    return list(dict.fromkeys(renewed.values())), quiet | {renewed[one] for one in renewed if one in quiet}


def _newest(events: Sequence[Event], people: People) -> dict[UUID, datetime]:
    """When each customer did its last of these events."""
    found: dict[UUID, datetime] = {}
    for event in events:
        person = people.get(event.id)
        if person is not None:
            found[person.customer_id] = max(found.get(person.customer_id, event.occurred_at), event.occurred_at)
    return found


def _touched(people: People) -> list[UUID]:
    return list({person.customer_id for person in people.values() if person is not None})


def _others(
    events: Sequence[Event], people: People, triggers: Sequence[Trigger], *, only_newest: bool
) -> list[tuple[UUID, datetime]]:
    """Each touched customer's newest moment that no trigger covers already; or every such moment, where it matters what
    was known right before a trigger, or when a group was entered: a batch must not tell otherwise than its events one
    by one."""
    moments: dict[UUID, list[datetime]] = {}
    for event in events:
        person = people.get(event.id)
        if person is not None:
            moments.setdefault(person.customer_id, []).append(event.occurred_at)
    covered = {(trigger.customer_id, trigger.at) for trigger in triggers}
    chosen = {one: [max(times)] if only_newest else sorted(set(times)) for one, times in moments.items()}
    return [(one, at) for one, times in chosen.items() for at in times if (one, at) not in covered]
