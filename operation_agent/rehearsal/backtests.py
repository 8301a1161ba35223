"""Backtests that were asked for: a row each, worked off by a job, kept with what came out.

An open tick stands for one that is still to be done, so that the sweep rings again for one whose worker died; it is
then done from the start, as of the same moment, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from operation_agent.kit.clock import SYSTEM, Clock
from operation_agent.kit.errors import AgentError, Conflict, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import outbox, ticks
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.strategies import authoring, forms, records
from operation_agent.strategies.records import StrategyRow
from rules.strategy import Strategy

from . import backtest
from .untouched import forbid_writing

TOPIC = "backtests.run"
MOST_OPEN = 10
"""Of a shop at a time: each takes a minute or two of a worker."""
MOST_ATTEMPTS = 3
"""After so many workers that died over it nobody tries it again."""


@dataclass(frozen=True, slots=True)
class BacktestRow:
    """`until` is shop time, the other times are system time. `version` None: of a definition that was sent along."""

    id: UUID
    strategy_id: UUID
    strategy_key: str
    version: int | None
    live_version: int | None
    request: dict[str, Any]
    state: str
    until: datetime
    asked_at: datetime
    asked_by: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be rehearsed: a version, or an unsaved definition (`version` None), beside what is live."""

    row: StrategyRow
    strategy: Strategy
    version: int | None
    live: Strategy | None
    live_version: int | None


def choose(
    session: Session, shop_id: UUID, key: str, *, version: str | None = None, definition: Any = None
) -> Choice:  # fmt: skip
    """`version`: 'draft', 'live' or a number; by default the draft if there is one, else what is live. What is live is
    never compared with itself. Raises NotFound; Rejected for a definition that does not read or has another key."""
    row = records.find(session, shop_id, key)
    live = authoring.live_strategy(session, shop_id, row.key)
    if definition is not None:
        made = forms.read_of_shop(session, shop_id, definition)
        if made.key != row.key:
            raise Rejected(f"this is {made.key!r}, not {row.key!r}", where="definition.key")
        return Choice(row, made, None, live, row.version if live is not None else None)
    wanted = version or ("draft" if row.draft is not None else "live")
    reference: authoring.Reference = int(wanted) if wanted.isdigit() else wanted  # type: ignore[assignment]
    found = authoring.at_version(session, shop_id, row, reference)
    if found.version == row.version:
        live = None
    return Choice(row, records.read(found.definition), found.version, live, row.version if live is not None else None)


def ask(session: Session, shop: Shop, choice: Choice, *, days: int, at: datetime, actor: str) -> BacktestRow:
    """Have `choice` held against the last `days`. `at` is system time.

    Raises Rejected for too many days, Conflict (code 'backtests') while MOST_OPEN others are to be done.
    """
    backtest.check_days(days)
    _serialise(session, shop.id)
    waiting = session.execute(_OPEN, {"shop": shop.id}).scalar_one()
    if waiting >= MOST_OPEN:
        raise Conflict(f"{waiting} backtests are still to be done; ask again when one is", code="backtests")
    made, until = new_id(), at + shop.clock_offset
    request = {"days": days, "version": choice.version}
    session.execute(
        _INSERT,
        {
            "shop": shop.id, "id": made, "strategy": choice.row.id, "key": choice.row.key, "version": choice.version,
            "live_version": choice.live_version, "definition": _json(choice.strategy.to_dict()),
            "live": _json(choice.live.to_dict()) if choice.live is not None else None, "request": _json(request),
            "until": until, "at": at, "actor": actor,
        },
    )  # fmt: skip
    ticks.take(session, shop.id, _schedule(made), until, at=at)
    outbox.ring(session, shop.id, [(TOPIC, str(made))], at=at)
    return get(session, shop.id, made)


def work(engine: Engine, shop_id: UUID, backtest_id: UUID, *, clock: Clock = SYSTEM) -> None:
    """Do one that is still to be done, from the start; one that is done, or gone, is left as it is."""
    with for_shop(engine, shop_id) as session:
        task = _begin(session, shop_id, backtest_id, clock.now())
    if task is None:
        return
    try:
        with for_shop(engine, shop_id) as session:
            forbid_writing(session)
            outcome = _replay(session, load_shop(session, shop_id), task)
    except AgentError as error:
        fail(engine, shop_id, backtest_id, error.detail, clock=clock)
        return
    with for_shop(engine, shop_id) as session:
        _end(session, shop_id, backtest_id, "done", clock.now(), result=outcome)


def fail(engine: Engine, shop_id: UUID, backtest_id: UUID, reason: str, *, clock: Clock = SYSTEM) -> None:
    """Give one up, and say why."""
    with for_shop(engine, shop_id) as session:
        _end(session, shop_id, backtest_id, "failed", clock.now(), error=reason)


def _begin(session: Session, shop_id: UUID, backtest_id: UUID, at: datetime) -> Any:
    task = session.execute(_BEGIN, {"shop": shop_id, "id": backtest_id, "at": at}).one_or_none()
    if task is not None and task.attempts > MOST_ATTEMPTS:
        _end(session, shop_id, backtest_id, "failed", at, error="the worker died over it; ask for fewer days")
        return None
    return task


def _replay(session: Session, shop: Shop, task: Any) -> dict[str, Any]:
    found = backtest.run(
        session, shop, records.read(task.definition), days=task.request["days"], until=task.until,
        live=records.read(task.live) if task.live is not None else None, real_id=task.strategy_id,
    )  # fmt: skip
    return found.to_dict()


def _end(
    session: Session, shop_id: UUID, backtest_id: UUID, state: str, at: datetime, *,
    result: Mapping[str, Any] | None = None, error: str | None = None,
) -> None:  # fmt: skip
    until = session.execute(
        _END,
        {
            "shop": shop_id, "id": backtest_id, "state": state, "at": at, "error": error,
            "result": _json(result) if result is not None else None,
        },
    ).scalar()  # fmt: skip
    if until is not None:
        ticks.finish_one(session, shop_id, _schedule(backtest_id), until, at=at)


def get(session: Session, shop_id: UUID, backtest_id: UUID) -> BacktestRow:
    """Raises NotFound."""
    row = session.execute(_ONE, {"shop": shop_id, "id": backtest_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no backtest {backtest_id}")
    return BacktestRow(**row._mapping)


def list_backtests(
    session: Session, shop_id: UUID, *, strategy_id: UUID | None = None, before: UUID | None = None, limit: int = 50
) -> list[BacktestRow]:
    """Newest first, without their results."""
    values = {"shop": shop_id, "strategy": strategy_id, "before": before, "limit": limit}
    return [BacktestRow(**row._mapping) for row in session.execute(_LIST, values)]


def _schedule(backtest_id: UUID) -> str:
    return f"{ticks.BACKTEST}{backtest_id}"


def _serialise(session: Session, shop_id: UUID) -> None:
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"backtests:{shop_id}"}
    )  # fmt: skip


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


_OPEN = text("SELECT count(*) FROM backtests WHERE shop_id = :shop AND state IN ('queued', 'running')")

_INSERT = text("""
INSERT INTO backtests (shop_id, id, strategy_id, strategy_key, version, live_version, definition, live, request, state,
                       until, asked_at, asked_by)
VALUES (:shop, :id, :strategy, :key, :version, :live_version, CAST(:definition AS jsonb), CAST(:live AS jsonb),
        CAST(:request AS jsonb), 'queued', :until, :at, :actor)
""")

_BEGIN = text("""
UPDATE backtests SET state = 'running', started_at = :at, attempts = attempts + 1
WHERE shop_id = :shop AND id = :id AND state IN ('queued', 'running')
RETURNING strategy_id, definition, live, request, until, attempts
""")

_END = text("""
UPDATE backtests SET state = :state, finished_at = :at, result = CAST(:result AS jsonb), error = :error
WHERE shop_id = :shop AND id = :id AND state IN ('queued', 'running') RETURNING until
""")

_COLUMNS = (
    "id, strategy_id, strategy_key, version, live_version, request, state, until, asked_at, asked_by, started_at,"
    " finished_at, error"
)
_ONE = text(f"SELECT {_COLUMNS}, result FROM backtests WHERE shop_id = :shop AND id = :id")  # noqa: S608
_LIST = text(
    f"SELECT {_COLUMNS} FROM backtests WHERE shop_id = :shop"  # noqa: S608
    " AND (CAST(:strategy AS uuid) IS NULL OR strategy_id = CAST(:strategy AS uuid))"
    " AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid)) ORDER BY id DESC LIMIT :limit"
)
