"""Strategies before they count: tried on customers, measured before publishing, held against the past."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import available_timezones

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.documents import Written, described, modelled
from api.errors import Problem
from api.fields import JsonObject, Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from api.routes.strategies import MISSING, Name
from operation_agent.access.principal import Principal
from operation_agent.actions.unsubscribe import Links
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound, Rejected
from operation_agent.kit.settings import settings
from operation_agent.rehearsal import backtests, dry_run, hypothetical, impact, trial
from operation_agent.rehearsal.backtests import Choice
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.strategies import forms, records

router = APIRouter(prefix="/api", tags=["rehearsal"])

Reader = Annotated[Principal, Depends(Requires("decisions:read"))]
BacktestId = Annotated[UUID, Path(description="The backtest's id")]
VERSION = r"^(live|draft|[1-9][0-9]{0,8})$"
Version = Annotated[str, Field(pattern=VERSION, description="`draft`, `live` or a version's number")]
Channel = Literal["email", "sms"]
_NO_BACKTEST: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such backtest"}}
_ASKING: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such strategy or version"},
    409: {"model": Problem, "description": "Too many are still to be done, or the Idempotency-Key was used otherwise"},
    415: {"model": Problem, "description": "Neither JSON nor YAML"},
}


class TriggerAsked(BaseModel):
    """What sets the rules off; an event counts as though it had just come."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["event", "schedule", "missed", "entered", "left"]
    type: Text | None = Field(None, max_length=100, examples=["cart.added"], description="Of the event; for `missed`,"
                              " of the one that nothing followed")  # fmt: skip
    name: Text | None = Field(None, max_length=120, description="Of a custom event")
    properties: JsonObject | None = Field(None, examples=[{"product_id": "p1"}])
    group: Text | None = Field(None, max_length=200, examples=["segment.vip"], description="What is entered or left")


class ImaginedCustomer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fields: JsonObject = Field(
        default_factory=dict,
        examples=[{"customer.orders": 3, "cluster.label": "at_risk", "consent.email": "subscribed"}],
        description="As conditions name them; what is left out is missing",
    )
    channels: list[Channel] = Field(["email", "sms"], max_length=2, description="Those with an address")
    suppressed: dict[Channel, Text] = Field(default_factory=dict, description="Channel → why it may not be used")
    locale: Text | None = Field(None, max_length=35, examples=["zh-CN"])
    first_name: Text | None = Field(None, max_length=200)
    time_zone: Text | None = Field(None, max_length=64, examples=["Asia/Shanghai"])
    name: Text = Field("", max_length=200, description="Stands for the customer in draws: another name, another draw")


class DryRunAsked(BaseModel):
    """Give `customers` or `customer`."""

    model_config = ConfigDict(extra="forbid")

    version: Version | None = Field(None, description="By default the draft if there is one, else what is live")
    definition: dict[str, Any] | None = Field(None, description="Instead of a version: one that is not saved")
    customers: list[UUID] | None = Field(None, min_length=1, max_length=dry_run.MOST_CUSTOMERS)
    customer: ImaginedCustomer | None = Field(None, description="Somebody who does not exist")
    trigger: TriggerAsked

    @model_validator(mode="after")
    def _one_of_each(self) -> DryRunAsked:
        if (self.customers is None) == (self.customer is None):
            raise ValueError("give either `customers` or `customer`")
        if self.version is not None and self.definition is not None:
            raise ValueError("give either `version` or `definition`")
        return self


class TriedCustomer(BaseModel):
    customer_id: UUID | None = Field(description="null: the hypothetical one")
    rules: list[dict[str, Any]] = Field(
        description="Each rule: whether this trigger asks it (`is_asked`), whether its condition `holds` (null:"
        " unknown), and every comparison with the value seen"
    )
    candidates: list[dict[str, Any]] = Field(description="Rules that take the customer, with what they are worth")
    decision: dict[str, Any] | None = Field(
        description="The verdict, every guardrail's (also after one failed), the draws, the arms with their steps, due"
        " times, costs, rendered messages and approvals needed, and all of it in words; null: no rule takes them"
    )


class DryRun(BaseModel):
    as_of: datetime = Field(description="Shop time")
    strategy: str
    version: int | None = Field(description="null: a definition that is not saved")
    customers: list[TriedCustomer]


class ImpactMeasured(BaseModel):
    as_of: datetime = Field(description="Shop time")
    customers: int = Field(description="Everybody that was looked at")
    currency: str
    strategy: str
    version: int | None
    rules: list[dict[str, Any]] = Field(
        description="By rule: customers matching now, reachable, what becomes of them by verdict, what it may cost at"
        " most and is expected to (minor units)"
    )
    in_flight: list[dict[str, Any]] = Field(
        description="Who stands on steps of rules that change or go, and where they go from there"
    )
    conflicts: list[dict[str, Any]] = Field(description="Other live rules that match the same customers, and why")
    empty_variables: list[dict[str, Any]] = Field(description="Places in texts that come out empty, and for how many")


class BacktestAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    days: int = Field(90, ge=1, le=366, description="How many days back")
    version: Version | None = Field(None, description="By default the draft if there is one, else what is live")
    definition: dict[str, Any] | None = Field(None, description="Instead of a version: one that is not saved")

    @model_validator(mode="after")
    def _one(self) -> BacktestAsked:
        if self.version is not None and self.definition is not None:
            raise ValueError("give either `version` or `definition`")
        return self


class BacktestSummary(BaseModel):
    """`until` is shop time, the other times system time."""

    id: UUID
    strategy_id: UUID
    strategy_key: str
    version: int | None = Field(description="null: a definition that was sent along")
    live_version: int | None = Field(description="That it is compared with; null: nothing is")
    state: Literal["queued", "running", "done", "failed"]
    request: dict[str, Any]
    until: datetime
    asked_at: datetime
    asked_by: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


class Backtest(BacktestSummary):
    result: dict[str, Any] | None = Field(
        description="`draft`, `live` and `diff`: totals and days with decisions by verdict, sends by type, spend and"
        " overlap; and the `assumptions` behind them"
    )


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Of a body that is read as a document: in one piece, since `#/$defs` means nothing inside an OpenAPI document."""
    written = model.model_json_schema()
    parts = written.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, dict) and "$ref" in node:
            return whole(parts[node["$ref"].rpartition("/")[2]])
        if isinstance(node, dict):
            return {key: whole(value) for key, value in node.items()}
        return [whole(one) for one in node] if isinstance(node, list) else node

    found: dict[str, Any] = whole(written)
    return found


# -- the test bench -----------------------------------------------------------------------------------------------


@router.post(
    "/strategies/dry-run",
    operation_id="try_definition",
    summary="Try a definition that is not saved on customers; nothing is written",
    response_model=DryRun,
    responses=_ASKING,
    openapi_extra=described(_schema(DryRunAsked)),
)
def try_definition(body: Written, caller: Reader, database: Database, once: Idempotent) -> Response:
    """`definition` is needed. One whose key is a strategy's of the shop is tried as a version of it."""
    asked: DryRunAsked = modelled(DryRunAsked, body)
    if asked.definition is None:
        raise Rejected("`definition` is missing; POST …/{strategy}/dry-run tries a version", where="definition")

    def work(session: Session) -> DryRun:
        shop = load_shop(session, caller.shop.id)
        made = forms.read_of_shop(session, shop.id, asked.definition)
        try:
            row = records.find(session, shop.id, made.key)
        except NotFound:
            row = None
        return _tried(session, shop, asked, made.key, None, made, row)

    return once.run(database, caller.shop.id, work, status=200)


@router.post(
    "/strategies/{strategy}/dry-run",
    operation_id="try_strategy",
    summary="Try a version of a strategy on customers as of now; nothing is written",
    response_model=DryRun,
    responses=_ASKING,
    openapi_extra=described(_schema(DryRunAsked)),
)
def try_strategy(strategy: Name, body: Written, caller: Reader, database: Database, once: Idempotent) -> Response:
    """On up to 50 chosen customers, or on one who is imagined, by the code that decides live."""
    asked: DryRunAsked = modelled(DryRunAsked, body)

    def work(session: Session) -> DryRun:
        shop = load_shop(session, caller.shop.id)
        found = backtests.choose(session, shop.id, strategy, version=asked.version, definition=asked.definition)
        return _tried(session, shop, asked, found.row.key, found.version, found.strategy, found.row)

    return once.run(database, caller.shop.id, work, status=200)


def _tried(
    session: Session, shop: Shop, asked: DryRunAsked, key: str, version: int | None, strategy: Any,
    real: records.StrategyRow | None,
) -> DryRun:  # fmt: skip
    at = SYSTEM.now() + shop.clock_offset
    wanted = asked.trigger
    set_off = trial.read(
        wanted.kind, type_=wanted.type, name=wanted.name, properties=wanted.properties, group=wanted.group
    )
    base = Links.of(settings()).base
    if asked.customers is not None:
        found = dry_run.run(session, shop, strategy, asked.customers, set_off, at=at, real=real, base_url=base)
    else:
        assert asked.customer is not None
        imagined = _imagined(asked.customer)
        found = [hypothetical.run(session, shop, strategy, imagined, set_off, at=at, real=real, base_url=base)]
    shown = [TriedCustomer(**one.to_dict()) for one in found]
    return DryRun(as_of=at, strategy=key, version=version, customers=shown)


def _imagined(said: ImaginedCustomer) -> hypothetical.Hypothetical:
    if said.time_zone is not None and said.time_zone not in available_timezones():
        raise Rejected(
            f"{said.time_zone!r} is not a time zone of the IANA database", where="customer.time_zone"
        )  # fmt: skip
    values = said.model_dump() | {"channels": tuple(said.channels)}
    return hypothetical.Hypothetical(**values)


# -- before publishing --------------------------------------------------------------------------------------------


@router.get(
    "/strategies/{strategy}/impact",
    operation_id="get_impact",
    summary="What publishing a version would mean now",
    response_model=ImpactMeasured,
    responses=MISSING,
)
def get_impact(
    strategy: Name,
    caller: Reader,
    database: Database,
    version: Annotated[
        str | None, Query(pattern=VERSION, description="By default the draft, else what is live")
    ] = None,
    in_flight: Annotated[
        Literal["finish", "exit"], Query(description="What is to become of who is under way in a rule that changes")
    ] = "finish",
) -> ImpactMeasured:
    """Whom it would take, what stops them, what it may cost, who is under way, what it collides with. It looks at
    every customer: a few seconds for 100,000."""
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        found = backtests.choose(session, shop.id, strategy, version=version)
        measured = _measured(session, shop, found, in_flight)
    return ImpactMeasured(**measured.to_dict(), strategy=found.row.key, version=found.version)


def _measured(session: Session, shop: Shop, found: Choice, in_flight: Literal["finish", "exit"]) -> impact.Impact:
    live = found.live if found.version != found.row.version else found.strategy
    at = SYSTEM.now() + shop.clock_offset
    return impact.measure(
        session, shop, found.strategy, at=at, real=found.row, live=live, in_flight=in_flight
    )  # fmt: skip


# -- the past -----------------------------------------------------------------------------------------------------


@router.post(
    "/strategies/{strategy}/backtests",
    operation_id="ask_backtest",
    summary="Hold a version against the last days as they really were",
    status_code=202,
    response_model=Backtest,
    responses=_ASKING,
    openapi_extra=described(_schema(BacktestAsked)),
)
def ask_backtest(strategy: Name, body: Written, caller: Reader, database: Database, once: Idempotent) -> Response:
    """What is live is held beside it. It takes up to a minute or two: GET /api/backtests/{id} until its state is `done`
    or `failed`."""
    asked: BacktestAsked = modelled(BacktestAsked, body)

    def work(session: Session) -> Backtest:
        shop = load_shop(session, caller.shop.id)
        found = backtests.choose(session, shop.id, strategy, version=asked.version, definition=asked.definition)
        row = backtests.ask(session, shop, found, days=asked.days, at=SYSTEM.now(), actor=caller.actor)
        return Backtest(**_shown(row), result=None)

    return once.run(database, caller.shop.id, work, status=202)


@router.get(
    "/backtests",
    operation_id="list_backtests",
    summary="Backtests, newest first",
    response_model=Page[BacktestSummary],
    responses=MISSING,
)
def list_backtests(
    caller: Reader,
    database: Database,
    paging: Paged,
    strategy: Annotated[str | None, Query(max_length=63, description="Of this strategy only: its id or key")] = None,
) -> Any:
    (before,) = paging.after(UUID)
    with for_shop(database, caller.shop.id) as session:
        of = records.find(session, caller.shop.id, strategy).id if strategy is not None else None
        rows = backtests.list_backtests(
            session, caller.shop.id, strategy_id=of, before=before, limit=paging.limit + 1
        )  # fmt: skip
    return paging.page(rows, lambda row: BacktestSummary(**_shown(row)), lambda row: (row.id,))


@router.get(
    "/backtests/{backtest_id}",
    operation_id="get_backtest",
    summary="One backtest with what came out",
    response_model=Backtest,
    responses=_NO_BACKTEST,
)
def get_backtest(backtest_id: BacktestId, caller: Reader, database: Database) -> Backtest:
    with for_shop(database, caller.shop.id) as session:
        row = backtests.get(session, caller.shop.id, backtest_id)
    return Backtest(**_shown(row), result=row.result)


def _shown(row: backtests.BacktestRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in BacktestSummary.model_fields}
