"""Strategies: what the agent may do, made from the shipped templates or written out, and the states they pass."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.documents import DEFINITION, ExpectedRevision, Written, described, etag, modelled
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from api.routes.rules import Rule, rules_of
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Rejected
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import authoring, document, forms, library, lifecycle, records, signoff
from rules import plain
from rules import strategy as definitions

router = APIRouter(prefix="/api", tags=["strategies"])

Reader = Annotated[Principal, Depends(Requires("strategies:read"))]
Writer = Annotated[Principal, Depends(Requires("strategies:write"))]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", description="The strategy's id or key")]
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such strategy in this shop"}}
CHANGES: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such strategy, version or template"},
    409: {
        "model": Problem,
        "description": "Its state forbids it, somebody else changed it (code `revision`), it needs an approval"
        " (`approval_needed`), or the Idempotency-Key was used otherwise",
    },
    415: {"model": Problem, "description": "Neither JSON nor YAML"},
}


class StrategySummary(BaseModel):
    id: UUID
    key: str
    name: dict[str, str] = Field(description="By language: zh, en")
    goal: str
    state: str = Field(description="`draft`, `live`, `paused` or `archived`")
    revision: int = Field(description="Counts every change; goes into If-Match")
    version: int | None = Field(description="The version that counts; null: never published, or archived")
    draft: int | None = Field(description="The version that is being edited; null: none is")
    holdout: float = Field(description="Share of customers left alone, by which its effect is measured")
    budget_id: UUID | None
    started_at: datetime | None = Field(description="Shop time")
    created_at: datetime
    updated_at: datetime


class Strategy(StrategySummary):
    definition: dict[str, Any] = Field(description="What counts; of a strategy never published, its draft")
    rules: list[Rule] = Field(description="Every version, newest first")


class Template(BaseModel):
    key: str
    name: dict[str, str]
    goal: str
    why: dict[str, str] = Field(description="What it is for, by language")
    effect: dict[str, str] = Field(description="What it is expected to change, by language")
    definition: dict[str, Any]


class NewStrategy(BaseModel):
    """From a `template` or from a `definition`, one of them."""

    model_config = ConfigDict(title="NewStrategy")

    template: Text | None = Field(None, max_length=63, examples=["win_back"])
    definition: dict[str, Any] | None = Field(None, description="A whole strategy, or one plain rule, written out")
    format: Literal["strategy", "plain"] | None = Field(
        None,
        description="`plain`: the definition is {rule_id, name, conditions, actions, …}; told by rule_id if absent",
    )
    key: Text | None = Field(None, max_length=63, description="Replaces the one written: two from one template")
    name: dict[str, Text] | None = Field(None, description="Replaces the one written, by language: en, zh")
    holdout: float | None = Field(None, ge=0, lt=1, allow_inf_nan=False, description="Replaces the one written")
    budget: Decimal | None = Field(
        None, gt=0, le=10**12, decimal_places=4, description="In units of the shop's currency; replaces the one written"
    )
    state: Literal["live", "draft"] | None = Field(
        None, description="By default a template goes `live` and a definition becomes a `draft`"
    )

    @model_validator(mode="after")
    def _one_source(self) -> NewStrategy:
        if (self.template is None) == (self.definition is None):
            raise ValueError("give either `template` or `definition`")
        if self.format is not None and (self.format == "plain") != plain.is_plain(self.definition):
            raise ValueError("`format: plain` and a definition with a `rule_id` go together")
        return self


class StrategyChange(BaseModel):
    state: Literal["live", "paused", "archived"]


class Fault(BaseModel):
    where: str
    reason: str


class Validation(BaseModel):
    valid: bool
    errors: list[Fault]
    definition: dict[str, Any] | None = Field(description="As it would be stored")
    changes: list[dict[str, Any]] = Field(description="From what is live under this key")
    approval: list[dict[str, Any]] = Field(description="Why publishing it would need another person's yes")


def shown(row: records.StrategyRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in StrategySummary.model_fields}


def whole(session: Session, shop_id: UUID, row: records.StrategyRow) -> Strategy:
    return Strategy(**shown(row), definition=row.definition, rules=rules_of(session, shop_id, strategy=row.id))


def _new(body: Any) -> NewStrategy:
    """What was sent: a NewStrategy, or a definition by itself."""
    if isinstance(body, dict) and body.keys() & {"rules", "rule_id"} and not {"template", "definition"} & body.keys():
        body = {"definition": body}
    made: NewStrategy = modelled(NewStrategy, body)
    return made


def _drafted(session: Session, shop_id: UUID, body: NewStrategy) -> definitions.Strategy:
    """What was asked for, with what replaces parts of it."""
    replaced = {"holdout": body.holdout, "budget": body.budget, "key": body.key, "name": body.name}
    if body.template is not None:
        made = lifecycle.adapted(library.template(body.template), **replaced)  # type: ignore[arg-type]
    else:
        made = lifecycle.adapted(forms.read_of_shop(session, shop_id, body.definition), **replaced)  # type: ignore[arg-type]
    return forms.read_of_shop(session, shop_id, made.to_dict())


@router.get(
    "/strategies", operation_id="list_strategies", summary="Strategies by key", response_model=list[StrategySummary]
)
def list_strategies(caller: Reader, database: Database) -> list[StrategySummary]:
    with for_shop(database, caller.shop.id) as session:
        return [StrategySummary(**shown(row)) for row in records.list_strategies(session, caller.shop.id)]


@router.get(
    "/strategies/templates",
    operation_id="list_templates",
    summary="The templates a strategy can be started from",
    response_model=list[Template],
)
def list_templates(_caller: Reader) -> list[Template]:
    return [
        Template(
            key=key, name=found.name, goal=found.goal, why=found.why, effect=found.effect, definition=found.to_dict()
        )
        for key, found in library.library().items()
    ]


@router.post(
    "/strategies/validate",
    operation_id="validate_strategy",
    summary="Read a definition and say all that is wrong with it; nothing is stored",
    response_model=Validation,
    responses=CHANGES,
    openapi_extra=described(DEFINITION),
)
def validate_strategy(body: Written, caller: Reader, database: Database, once: Idempotent) -> Response:
    return once.run(database, caller.shop.id, lambda session: _validated(session, caller.shop.id, body), status=200)


def _validated(session: Session, shop_id: UUID, body: Any) -> Validation:
    key = body.get("key") if isinstance(body, dict) else None
    words = forms.vocabulary_for(session, shop_id, [key] if isinstance(key, str) else [])
    try:
        strategy = forms.read(body, words)
    except Rejected as error:
        errors = [Fault(**one) for one in error.extra["errors"]]
        return Validation(valid=False, errors=errors, definition=None, changes=[], approval=[])
    before = authoring.live_strategy(session, shop_id, strategy.key)
    needed = signoff.needs(session, load_shop(session, shop_id), before, strategy)
    return Validation(
        valid=True, errors=[], definition=strategy.to_dict(),
        changes=[asdict(one) for one in authoring.compare(before, strategy)],
        approval=needed.why if needed is not None else [],
    )  # fmt: skip


@router.get(
    "/strategies/{strategy}",
    operation_id="get_strategy",
    summary="One strategy with its rules; as YAML with ?format=yaml",
    response_model=Strategy,
    responses={
        **MISSING,
        200: {
            "content": {"application/yaml": {"schema": {"type": "string"}}},
            "description": "Its ETag is its revision",
        },
    },
)
def get_strategy(
    strategy: Name,
    caller: Reader,
    database: Database,
    response: Response,
    format: Annotated[Literal["json", "yaml"], Query(description="yaml: the definition alone, as a file")] = "json",
) -> Any:
    with for_shop(database, caller.shop.id) as session:
        row = records.find(session, caller.shop.id, strategy)
        if format == "yaml":
            written = document.write(records.read(row.definition).to_dict())
            return Response(written, headers=etag(row.revision), media_type="application/yaml")
        response.headers.update(etag(row.revision))
        return whole(session, caller.shop.id, row)


@router.post(
    "/strategies",
    operation_id="start_strategy",
    summary="Make a strategy from a template or a definition, as a draft or live",
    status_code=201,
    response_model=Strategy,
    responses=CHANGES,
    openapi_extra=described(NewStrategy.model_json_schema()),
)
def start_strategy(body: Written, caller: Writer, database: Database, once: Idempotent) -> Response:
    """The body may also be a definition by itself. With state `live`, a strategy of this template that is a draft or
    paused goes live as it stands."""
    asked = _new(body)

    def work(session: Session) -> Strategy:
        shop = load_shop(session, caller.shop.id)
        at = SYSTEM.now()
        made = _drafted(session, shop.id, asked)
        if asked.template is not None and asked.state != "draft":
            row = lifecycle.bring_live(session, shop, made, at=at, actor=caller.actor)
        else:
            row = authoring.create(session, shop, made, at=at, actor=caller.actor)
            if asked.state == "live":
                row = authoring.publish(session, shop, row.key, at=at, actor=caller.actor).strategy
        return whole(session, shop.id, row)

    return once.run(database, caller.shop.id, work, status=201)


@router.patch(
    "/strategies/{strategy}",
    operation_id="change_strategy",
    summary="Pause a strategy, let it go on, or archive it",
    response_model=Strategy,
    responses=CHANGES,
)
def change_strategy(
    strategy: Name, body: StrategyChange, caller: Writer, database: Database, expected: ExpectedRevision,
    response: Response,
) -> Strategy:  # fmt: skip
    """`live` publishes a strategy that was never published, and lets a paused one go on; the draft beside a live
    version is published by POST …/publish."""
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        row = lifecycle.move(
            session, shop, strategy, body.state, at=SYSTEM.now(), actor=caller.actor, expected_revision=expected
        )
        response.headers.update(etag(row.revision))
        return whole(session, shop.id, row)
