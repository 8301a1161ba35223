"""What an export's objects say, stored: only what we did not know, or knew as it was before.

An object is `missing` when we did not know it at all, `stale` when ours was older, else it is left alone. The same
object again, by webhook or in another sync, is known by the source ids of its events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.customers import history
from operation_agent.events import intake
from operation_agent.events.event import PAST, Event
from operation_agent.store.shops import Shop

from . import mirror
from .protocol import Exported
from .records import Record, Telling
from .steps import Counted
from .sync import Sync

SNAPSHOT = "order.updated"
"""Says how an order stands now; needless beside its first telling, which says the same."""

Verdict = Literal["missing", "stale", "known"]


@dataclass(slots=True)
class _Sent:
    """What one object's events came to."""

    accepted: int = 0
    first_was_known: bool = False


def store(session: Session, shop: Shop, sync: Sync, batch: Sequence[Exported]) -> Counted:
    """Store a batch of a sync in this transaction, and count what it was."""
    usable = [one for one in batch if one.refused is None]
    told, events = _tell(session, shop, sync, usable)
    records, tellings = _mirror(session, shop, sync, usable)
    verdicts = [_worst(a, b) for a, b in zip(told, records, strict=True)]
    counted = [verdict for one, verdict in zip(usable, verdicts, strict=True) if one.is_whole]
    return Counted(
        objects=sum(one.is_whole for one in batch),
        missing=counted.count("missing"),
        stale=counted.count("stale"),
        events=events,
        tellings=tellings,
        refusals=[(one.key, one.refused) for one in batch if one.refused is not None],
    )


def _worst(one: Verdict, other: Verdict) -> Verdict:
    return "missing" if "missing" in (one, other) else "stale" if "stale" in (one, other) else "known"


# -- events -------------------------------------------------------------------------------------------------------


def _tell(session: Session, shop: Shop, sync: Sync, objects: Sequence[Exported]) -> tuple[list[Verdict], int]:
    """Commit the events of what is missing or stale; what each object was, and how many events were new."""
    if not any(one.events for one in objects):
        return ["known"] * len(objects), 0
    known = _known(session, shop.id, sync, objects)
    wanted = [_wanted(one, known) for one in objects]
    sent = _commit(session, shop, sync, wanted)
    # its first telling is known, and waits in the queue perhaps: then how it stands now is news
    again = [
        [event for event in one.events if event.type == SNAPSHOT]
        if was.first_was_known and one.key not in known
        else []
        for one, was in zip(objects, sent, strict=True)
    ]
    snapshots = _commit(session, shop, sync, again)
    new = [one.accepted + other.accepted for one, other in zip(sent, snapshots, strict=True)]
    verdicts: list[Verdict] = [
        "known" if not number else "stale" if one.key in known or was.first_was_known else "missing"
        for one, was, number in zip(objects, sent, new, strict=True)
    ]
    return verdicts, sum(new)


def _wanted(one: Exported, known: Mapping[str, datetime | None]) -> list[Event]:
    """Of a stale object everything, of a missing one all but how it stands now, of a known one nothing."""
    if one.key not in known:
        return [event for event in one.events if event.type != SNAPSHOT]
    ours = known[one.key]
    is_stale = ours is None or one.updated_at is None or ours < one.updated_at
    return list(one.events) if is_stale else []


def _known(session: Session, shop_id: UUID, sync: Sync, objects: Sequence[Exported]) -> Mapping[str, datetime | None]:
    """Which of the objects we know, and as of when; None: only that it is not as of this telling."""
    if sync.kind == "orders":
        return history.known_orders(session, shop_id, [one.key for one in objects])
    told = {one.key: one.updated_at for one in objects}
    return {
        key: told[key] if told[key] in times else None
        for key, times in _people(session, shop_id, sync.vendor, list(told)).items()
    }


def _people(session: Session, shop_id: UUID, vendor: str, ids: Sequence[str]) -> dict[str, set[datetime]]:
    """Of the storefront's customers that we know: the moments at which something was said of their profile."""
    rows = session.execute(
        text(
            "SELECT i.value, c.trait_times FROM identities i JOIN customers c ON c.shop_id = i.shop_id"
            " AND c.id = i.customer_id WHERE i.shop_id = :shop AND i.kind = :kind"
            " AND i.value = ANY(CAST(:ids AS text[]))"
        ),
        {"shop": shop_id, "kind": vendor, "ids": list(ids)},
    )
    return {row.value: {datetime.fromisoformat(at) for at in row.trait_times.values() if at} for row in rows}


def _commit(session: Session, shop: Shop, sync: Sync, wanted: Sequence[Sequence[Event]]) -> list[_Sent]:
    """Commit each object's events; a first load's as of the past, so that they set nothing off."""
    flat = [event for events in wanted for event in events]
    if sync.mode == "first":
        for event in flat:
            event.context[PAST] = True
    sent = [_Sent() for _ in wanted]
    if not flat:
        return sent
    repeated = intake.commit(session, shop.id, flat).duplicate_indexes
    position = 0
    for events, was in zip(wanted, sent, strict=True):
        fresh = [position + index not in repeated for index in range(len(events))]
        was.accepted = sum(fresh)
        was.first_was_known = bool(fresh) and not fresh[0]
        position += len(events)
    return sent


# -- the shop's own things ----------------------------------------------------------------------------------------


def _mirror(
    session: Session, shop: Shop, sync: Sync, objects: Sequence[Exported]
) -> tuple[list[Verdict], int]:  # fmt: skip
    """Write the tellings of objects with anything that is newer than ours, in a first load all of them, since what has
    left a collection may show by nothing else. What each object was, and how many tellings were written."""
    ours = _ours(session, shop.id, [record for one in objects for record in one.tellings])
    verdicts = [_verdict(one.tellings, ours) for one in objects]
    new = [
        telling
        for one, verdict in zip(objects, verdicts, strict=True)
        if verdict != "known" or sync.mode == "first"
        for telling in one.tellings
    ]
    if new:
        mirror.write(session, shop, new)
    return verdicts, len(new)


def _verdict(tellings: Sequence[Telling], ours: Mapping[tuple[str, tuple[str, ...]], datetime]) -> Verdict:
    """By the records of an object, the first of which is the object itself."""
    records = [one for one in tellings if isinstance(one, Record)]
    if records and (records[0].kind, records[0].key) not in ours:
        return "missing"
    newer = any((one.kind, one.key) not in ours or ours[one.kind, one.key] < one.updated_at for one in records)
    return "stale" if newer else "known"


def _ours(
    session: Session, shop_id: UUID, tellings: Sequence[Telling]
) -> dict[tuple[str, tuple[str, ...]], datetime]:  # fmt: skip
    keys: dict[str, list[tuple[str, ...]]] = {}
    for one in tellings:
        if isinstance(one, Record):
            keys.setdefault(one.kind, []).append(one.key)
    return {
        (kind, key): at
        for kind, wanted in keys.items()
        for key, at in mirror.known(session, shop_id, kind, wanted).items()
    }
