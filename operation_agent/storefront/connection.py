"""The connection to a shop's own system: what stands in its way, and when to look at it again.

A provider that says no to everything (a revoked token, an uninstalled app, a frozen shop) stops what goes out to it:
its actions stay ready, its syncs and changes wait, and the operator is told once. Nothing here calls anybody:
`workers/connecting.py` does, woken by `due`. All instants are system time: tokens do not live in a shop's time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.events.event import Event
from operation_agent.store import audit, outbox
from operation_agent.store.shops import Shop

Problem = Literal["unavailable", "scopes", "unauthorized", "uninstalled"]
PROBLEMS: tuple[Problem, ...] = ("unavailable", "scopes", "unauthorized", "uninstalled")
"""The weakest first: a problem gives way to a stronger one only, until it is cleared."""

CHECK, RENEW = "integrations.check", "integrations.renew"
"""Wake-ups, by vendor: look at scopes and webhooks, and whether a problem has passed; renew the token."""

LEASE = timedelta(minutes=3)
"""How long somebody who took a renewal or a check has for it: above any time limit of the calls in it."""
PATIENCE = timedelta(minutes=10)
"""After which a provider that was unavailable is asked again."""

ADVICE: Mapping[str, Mapping[str, str]] = {
    "unauthorized": {
        "en": "The token is wrong, expired or revoked. Connect the shop again, or enter a new access token.",
        "zh": "访问令牌错误、已过期或已被撤销。请重新连接店铺，或填写新的访问令牌。",
    },
    "uninstalled": {
        "en": "The app was uninstalled at the shop. Install it again and connect; nothing was deleted here.",
        "zh": "应用已在店铺后台卸载。请重新安装并连接；此处的数据没有删除。",
    },
    "scopes": {
        "en": "The app was not granted what this needs. Grant the scopes named here, then connect or check again.",
        "zh": "应用缺少所需的权限。请授予此处列出的权限，然后重新连接或重新检查。",
    },
    "unavailable": {
        "en": "The shop is frozen, locked or has moved. It is asked again by itself every ten minutes.",
        "zh": "店铺已被冻结、锁定或迁移。系统每十分钟自动重试一次。",
    },
}
"""What an operator does about each problem."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A row of `integrations`, its secrets still sealed. `secrets` also tells one set of credentials from the next."""

    vendor: str
    channel: str | None
    base_url: str
    config: dict[str, Any]
    secrets: bytes | None
    enabled: bool
    problem: Problem | None
    scopes: tuple[str, ...]
    token_expires_at: datetime | None
    subscriptions: dict[str, Any]


_COLUMNS = "vendor, channel, base_url, config, secrets, enabled, problem, scopes, token_expires_at, subscriptions"


def _connection(row: Row[Any] | None) -> Connection | None:
    if row is None:
        return None
    sealed = bytes(row.secrets) if row.secrets is not None else None
    return Connection(**{**row._mapping, "secrets": sealed, "scopes": tuple(row.scopes)})


def find(session: Session, shop_id: UUID, vendor: str, *, lock: bool = False) -> Connection | None:
    """The shop's integration of a vendor; `lock`: nobody else changes it in this transaction."""
    row = session.execute(
        text(
            f"SELECT {_COLUMNS} FROM integrations WHERE shop_id = :shop AND vendor = :vendor"  # noqa: S608
            + (" FOR UPDATE" if lock else "")
        ),
        {"shop": shop_id, "vendor": vendor},
    ).one_or_none()
    return _connection(row)


def problem_of(session: Session, shop_id: UUID, vendor: str) -> Problem | None:
    """What stops everything that would go out to a vendor; None: nothing does."""
    found: Problem | None = session.execute(
        text("SELECT problem FROM integrations WHERE shop_id = :shop AND vendor = :vendor"),
        {"shop": shop_id, "vendor": vendor},
    ).scalar()
    return found


def stopped_channels(session: Session, shop_id: UUID) -> frozenset[str]:
    """Channels of actions whose provider refuses everything."""
    found = session.execute(
        text(
            "SELECT channel FROM integrations"
            " WHERE shop_id = :shop AND enabled AND problem IS NOT NULL AND channel IS NOT NULL"
        ),
        {"shop": shop_id},
    ).scalars()
    return frozenset(found)


# -- problems -----------------------------------------------------------------------------------------------------

_NOTE = text("""
UPDATE integrations i SET problem = :problem, problem_detail = :detail, problem_at = :at,
  renew_at = CASE WHEN :problem = 'unauthorized' AND i.token_expires_at IS NOT NULL THEN CAST(:at AS timestamptz)
                  ELSE i.renew_at END,
  check_at = CASE WHEN :problem IN ('uninstalled', 'scopes') THEN CAST(:at AS timestamptz)
                  WHEN :problem = 'unavailable' THEN CAST(:later AS timestamptz)
                  ELSE i.check_at END
WHERE i.shop_id = :shop AND i.vendor = :vendor
  AND COALESCE(array_position(CAST(:ranks AS text[]), i.problem), 0) < array_position(CAST(:ranks AS text[]), :problem)
  AND (CAST(:credentials AS bytea) IS NULL OR i.secrets = CAST(:credentials AS bytea))
RETURNING i.renew_at, i.check_at
""")


def note_problem(
    session: Session, shop: Shop, vendor: str, problem: Problem, detail: str, *, at: datetime,
    credentials: bytes | None = None,
) -> bool:  # fmt: skip
    """Stop what goes out to `vendor` until somebody connects it again (or, where it can, until it works by itself).

    `credentials` are the sealed secrets that were refused: when others are stored by now, nothing is noted, and the
    call may be made again with those. True when this is news; only news is audited.
    """
    row = session.execute(
        _NOTE,
        {
            "shop": shop.id, "vendor": vendor, "problem": problem, "detail": detail[:500], "at": at,
            "later": at + PATIENCE, "ranks": list(PROBLEMS), "credentials": credentials,
        },
    ).one_or_none()  # fmt: skip
    if row is None:
        return False
    audit.record(
        session, shop.id, at=at, actor="system", verb="integration.stopped", subject=f"integration:{vendor}",
        detail={"problem": problem, "detail": detail[:500]},
    )  # fmt: skip
    due_now = ((RENEW, row.renew_at), (CHECK, row.check_at))
    outbox.ring(session, shop.id, [(topic, vendor) for topic, when in due_now if when == at], at=at)
    return True


_CLEAR = text("""
UPDATE integrations i SET problem = NULL, problem_detail = NULL, problem_at = NULL
FROM (SELECT problem FROM integrations WHERE shop_id = :shop AND vendor = :vendor FOR UPDATE) was
WHERE i.shop_id = :shop AND i.vendor = :vendor AND i.problem = ANY(:kinds)
RETURNING was.problem, i.channel
""")


def clear(
    session: Session, shop: Shop, vendor: str, *, at: datetime, actor: str = "system",
    kinds: Sequence[Problem] = PROBLEMS,
) -> bool:  # fmt: skip
    """It works again: ring for what waited. False when it had no such problem. Audited when it had."""
    row = session.execute(_CLEAR, {"shop": shop.id, "vendor": vendor, "kinds": list(kinds)}).one_or_none()
    if row is None:
        return False
    audit.record(
        session, shop.id, at=at, actor=actor, verb="integration.recovered", subject=f"integration:{vendor}",
        detail={"problem": row.problem},
    )  # fmt: skip
    wake_waiting(session, shop.id, vendor, at=at)
    waiting = [("actions.deliver", row.channel), ("actions.reconcile", "")] if row.channel else []
    outbox.ring(session, shop.id, waiting, at=at)
    return True


_WAKE = (
    text("""
UPDATE shop_changes SET retry_at = :at WHERE shop_id = :shop AND id IN (
  SELECT id FROM shop_changes WHERE shop_id = :shop AND vendor = :vendor AND retry_at > :at
    AND state IN ('asked', 'applying', 'undoing') AND reason_code = ANY(:codes) FOR UPDATE SKIP LOCKED)
"""),
    text("""
UPDATE storefront_syncs SET wake_at = :at WHERE shop_id = :shop AND id IN (
  SELECT id FROM storefront_syncs WHERE shop_id = :shop AND vendor = :vendor AND wake_at > :at
    AND error_code = ANY(:codes) FOR UPDATE SKIP LOCKED)
"""),
)
_REFUSED = ["unauthorized", "scope_missing", "shop_unavailable"]
"""Codes of errors that put something off for the connection's sake."""


def wake_waiting(session: Session, shop_id: UUID, vendor: str, *, at: datetime) -> None:
    """Syncs and changes that were put off because we were refused are due now: the sweep finds them. One that somebody
    is at just now comes back by itself (and may be holding what we hold: nobody waits for anybody here)."""
    for statement in _WAKE:
        session.execute(statement, {"shop": shop_id, "vendor": vendor, "at": at, "codes": _REFUSED})


def apply(session: Session, shop: Shop, events: Sequence[Event], *, at: datetime) -> None:
    """What the shop itself says of our app. It is asked before anything is believed: such a message may come late,
    after the app was installed again."""
    for event in events:
        if event.type == "app.uninstalled":
            note_problem(session, shop, event.source, "uninstalled", "the shop says the app was uninstalled", at=at)
        elif event.type == "app.scopes_changed":
            ask_check(session, shop.id, event.source, at=at)


# -- when to look again -------------------------------------------------------------------------------------------


def due(session: Session, shop_id: UUID, *, at: datetime) -> list[tuple[str, str]]:
    """The wake-ups of what is to be looked at by now."""
    rows = session.execute(
        text(
            "SELECT vendor, renew_at <= :at AS renew, check_at <= :at AS check_ FROM integrations"
            " WHERE shop_id = :shop AND enabled AND (renew_at <= :at OR check_at <= :at)"
        ),
        {"shop": shop_id, "at": at},
    ).all()
    return [
        (topic, row.vendor) for row in rows for topic, is_due in ((RENEW, row.renew), (CHECK, row.check_)) if is_due
    ]


def ask_check(session: Session, shop_id: UUID, vendor: str, *, at: datetime) -> bool:
    """Have scopes and webhooks looked at now; False when the vendor is not connected."""
    asked = session.execute(
        text("UPDATE integrations SET check_at = :at WHERE shop_id = :shop AND vendor = :vendor RETURNING 1"),
        {"shop": shop_id, "vendor": vendor, "at": at},
    ).scalar()
    if asked is not None:
        outbox.ring(session, shop_id, [(CHECK, vendor)], at=at)
    return asked is not None


def take_check(session: Session, shop_id: UUID, vendor: str, *, at: datetime) -> Connection | None:
    """The connection, if it is to be checked by now: nobody else takes it for the length of LEASE."""
    return _take(session, shop_id, vendor, "check_at", at)


def take_renewal(session: Session, shop_id: UUID, vendor: str, *, at: datetime) -> Connection | None:
    """The connection, if its token is to be renewed by now: one at a time, as `take_check`."""
    return _take(session, shop_id, vendor, "renew_at", at)


def _take(session: Session, shop_id: UUID, vendor: str, column: str, at: datetime) -> Connection | None:
    row = session.execute(
        text(
            f"UPDATE integrations SET {column} = :until WHERE shop_id = :shop AND vendor = :vendor AND enabled"  # noqa: S608
            f" AND {column} <= :at RETURNING {_COLUMNS}"
        ),
        {"shop": shop_id, "vendor": vendor, "at": at, "until": at + LEASE},
    ).one_or_none()
    return _connection(row)


def look_again(
    session: Session, shop_id: UUID, vendor: str, *, renew_at: datetime | None = None, check_at: datetime | None = None
) -> None:
    """When to come back; what is not given stays as it is."""
    session.execute(
        text(
            "UPDATE integrations SET renew_at = COALESCE(CAST(:renew AS timestamptz), renew_at),"
            " check_at = COALESCE(CAST(:check AS timestamptz), check_at) WHERE shop_id = :shop AND vendor = :vendor"
        ),
        {"shop": shop_id, "vendor": vendor, "renew": renew_at, "check": check_at},
    )


def rest(session: Session, shop_id: UUID, vendor: str) -> None:
    """Nothing is to be looked at until somebody connects it again."""
    session.execute(
        text("UPDATE integrations SET renew_at = NULL, check_at = NULL WHERE shop_id = :shop AND vendor = :vendor"),
        {"shop": shop_id, "vendor": vendor},
    )


# -- what is known of it ------------------------------------------------------------------------------------------


def keep_credentials(
    session: Session, shop_id: UUID, vendor: str, sealed: bytes | None, *, token_expires_at: datetime | None,
    renew_at: datetime | None,
) -> None:  # fmt: skip
    """All secrets at once, so that an access token and its refresh token never part."""
    session.execute(
        text(
            "UPDATE integrations SET secrets = :sealed, token_expires_at = :expires, renew_at = :renew"
            " WHERE shop_id = :shop AND vendor = :vendor"
        ),
        {"shop": shop_id, "vendor": vendor, "sealed": sealed, "expires": token_expires_at, "renew": renew_at},
    )


def keep_scopes(session: Session, shop_id: UUID, vendor: str, granted: Sequence[str], *, at: datetime) -> None:
    """What the provider says is granted, as of now."""
    session.execute(
        text("UPDATE integrations SET scopes = :scopes, checked_at = :at WHERE shop_id = :shop AND vendor = :vendor"),
        {"shop": shop_id, "vendor": vendor, "scopes": sorted(granted), "at": at},
    )


def keep_subscriptions(session: Session, shop_id: UUID, vendor: str, changes: Mapping[str, Any]) -> None:
    """Put `changes` over what is kept of the webhooks' last repair."""
    session.execute(
        text(
            "UPDATE integrations SET subscriptions = subscriptions || CAST(:changes AS jsonb)"
            " WHERE shop_id = :shop AND vendor = :vendor"
        ),
        {"shop": shop_id, "vendor": vendor, "changes": orjson.dumps(dict(changes), default=str).decode()},
    )
