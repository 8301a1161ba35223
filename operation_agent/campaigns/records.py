"""Campaigns: one run of one or more rules over an audience as of an instant, and where it stands.

    preparing -> running -> finished          preparing -> waiting_approval -> running
    preparing, running <-> paused             preparing, running -> failed -> (resumed) -> running
    whatever is not finished -> cancelled, and what it planned and nobody sent is taken back

`finished_at` is set when nothing is left to do, nor to take back. Only one campaign of a shop is worked on at a time,
in the order of due times, since what one plans counts for the caps and budgets of the next; one that waits for a person
holds nobody up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.decision.rationing import Cutoff
from operation_agent.kit.errors import NotFound
from operation_agent.kit.ids import new_id
from operation_agent.store import ticks

TOPIC = "campaigns.run"
FIRST_LANE = "0"
"""The outbox key of the lane that always runs; a campaign of many chunks opens more beside it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule that a campaign runs. `version` is None until it is prepared. `zones`: asked only of customers of these
    time zones; None: of everybody."""

    rule_id: UUID
    key: str | None = None
    strategy_id: UUID | None = None
    version: int | None = None
    zones: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        written = {
            "rule_id": str(self.rule_id), "key": self.key,
            "strategy_id": str(self.strategy_id) if self.strategy_id else None, "version": self.version,
            "zones": list(self.zones) if self.zones is not None else None,
        }  # fmt: skip
        return {name: value for name, value in written.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Campaign:
    """A row of `campaigns`. `as_of` and `due_at` are shop time, the other instants system time."""

    id: UUID
    kind: str
    rules: tuple[Asked, ...]
    audience: dict[str, Any]
    as_of: datetime
    due_at: datetime
    state: str
    reason: str | None
    attempts: int
    upper_id: UUID | None
    survey: int | None
    estimate: dict[str, Any]
    cutoffs: dict[str, Any]
    created_at: datetime
    created_by: str
    prepared_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def lines(self) -> dict[UUID, Cutoff] | None:
        """`cutoffs` as decisions take them."""
        return {UUID(key): Cutoff(one["score"], one["last"]) for key, one in self.cutoffs.items()} or None

    @property
    def tick(self) -> str:
        """How its tick is called in `schedule_ticks`: open while a machine has to work on it."""
        return f"campaign:{self.id}"


COLUMNS = """id, kind, rules, audience, as_of, due_at, state, reason, attempts, upper_id, survey, estimate, cutoffs,
  created_at, created_by, prepared_at, started_at, finished_at"""

_CURRENT = text(f"""
SELECT {COLUMNS} FROM campaigns
WHERE shop_id = :shop AND finished_at IS NULL AND state IN ('preparing', 'running', 'cancelled')
ORDER BY due_at, created_at, id LIMIT 1
""")  # noqa: S608


def read(row: Row[Any]) -> Campaign:
    values = dict(row._mapping)
    return Campaign(**{**values, "rules": tuple(_asked(one) for one in values["rules"])})


def _asked(written: dict[str, Any]) -> Asked:
    strategy, zones = written.get("strategy_id"), written.get("zones")
    return Asked(
        UUID(written["rule_id"]), written.get("key"), UUID(strategy) if strategy else None, written.get("version"),
        tuple(zones) if zones is not None else None,
    )  # fmt: skip


def current(session: Session, shop_id: UUID) -> Campaign | None:
    """The campaign that is to be worked on now: the one that was due first of those no person has to act on."""
    row = session.execute(_CURRENT, {"shop": shop_id}).one_or_none()
    return read(row) if row is not None else None


def find(session: Session, shop_id: UUID, campaign_id: UUID, *, lock: bool = False) -> Campaign:
    """One campaign; with `lock`, its row is this transaction's until it ends. Raises NotFound."""
    row = session.execute(
        text(
            f"SELECT {COLUMNS} FROM campaigns WHERE shop_id = :shop AND id = :id"  # noqa: S608
            + (" FOR UPDATE" if lock else "")
        ),
        {"shop": shop_id, "id": campaign_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no campaign {campaign_id} in this shop; GET /api/campaigns lists them")
    return read(row)


_INSERT = text("""
INSERT INTO campaigns (shop_id, id, kind, rules, audience, as_of, due_at, state, created_at, created_by)
VALUES (:shop, :id, :kind, CAST(:rules AS jsonb), CAST(:audience AS jsonb), :as_of, :due_at, 'preparing', :at, :by)
ON CONFLICT (shop_id, due_at) WHERE kind = 'cron' DO NOTHING RETURNING id
""")


def insert(
    session: Session, shop_id: UUID, *, kind: str, rules: Sequence[Asked], audience: dict[str, Any], as_of: datetime,
    due_at: datetime, by: str, at: datetime,
) -> UUID | None:  # fmt: skip
    """A new campaign, to be prepared; None when the schedule's campaign of that instant exists. `as_of` and `due_at`
    are shop time, `at` system time."""
    campaign_id = session.execute(
        _INSERT,
        {
            "shop": shop_id, "id": new_id(), "kind": kind, "audience": orjson.dumps(audience).decode(), "as_of": as_of,
            "due_at": due_at,
            "rules": orjson.dumps([one.to_dict() for one in rules]).decode(), "at": at, "by": by,
        },
    ).scalar()  # fmt: skip
    if campaign_id is not None:
        ticks.reopen(session, shop_id, f"campaign:{campaign_id}", due_at, at=at)
    return campaign_id


_FIELDS = frozenset({"state", "reason", "attempts", "rules", "upper_id", "survey", "estimate", "cutoffs", "prepared_at",
                     "started_at", "finished_at"})  # fmt: skip
_JSON = ("rules", "estimate", "cutoffs")


def change(session: Session, shop_id: UUID, campaign: Campaign, *, at: datetime, **changes: Any) -> None:
    """Set fields of a campaign, and its tick with them: open in the states in which a machine works on it.

    `at` is system time. The JSON fields are given as plain lists and dicts.
    """
    assert changes.keys() <= _FIELDS, changes
    values = {name: orjson.dumps(value).decode() if name in _JSON else value for name, value in changes.items()}
    assigned = ", ".join(
        f"{name} = CAST(:{name} AS jsonb)" if name in _JSON else f"{name} = :{name}" for name in values
    )
    session.execute(
        text(f"UPDATE campaigns SET {assigned} WHERE shop_id = :shop AND id = :id"),  # noqa: S608 - names of _FIELDS
        {"shop": shop_id, "id": campaign.id, **values},
    )
    if "state" not in changes and "finished_at" not in changes:
        return
    state, finished_at = changes.get("state", campaign.state), changes.get("finished_at", campaign.finished_at)
    if finished_at is None and state in ("preparing", "running", "cancelled"):
        ticks.reopen(session, shop_id, campaign.tick, campaign.due_at, at=at)
    else:
        ticks.finish_one(session, shop_id, campaign.tick, campaign.due_at, at=at)
