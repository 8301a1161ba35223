"""Rules, one by one: each edit is an edit of its strategy's draft, which goes live when the strategy is published."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.documents import ExpectedRevision, Written, described, etag, modelled
from api.errors import Problem
from api.fields import Text
from api.idempotency import Idempotent
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop
from operation_agent.strategies import forms, rule_edits

router = APIRouter(prefix="/api/rules", tags=["strategies"])

Reader = Annotated[Principal, Depends(Requires("strategies:read"))]
Writer = Annotated[Principal, Depends(Requires("strategies:write"))]
RuleId = Annotated[UUID, Path(description="The rule's id, the same in all versions")]
State = Literal["draft", "live", "disabled", "retired"]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such rule in this shop"}}
_CHANGES: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such rule or strategy"},
    409: {
        "model": Problem,
        "description": "The strategy is archived, somebody else changed it (code `revision`), or the rule is there",
    },
    415: {"model": Problem, "description": "Neither JSON nor YAML"},
}


class Rule(BaseModel):
    """One version of a rule."""

    id: UUID
    strategy_id: UUID
    strategy: str = Field(description="The strategy's key")
    key: str = Field(description="<strategy>/<rule>")
    version: int
    state: State = Field(description="`draft`: not published; `disabled`: the version that counts, switched off")
    enabled: bool
    definition: dict[str, Any]
    created_at: datetime
    created_by: str


class NewRule(BaseModel):
    model_config = ConfigDict(title="NewRule")

    strategy: Text = Field(max_length=63, description="The strategy's id or key", examples=["win-back"])
    definition: dict[str, Any] = Field(description="A rule as it stands in a strategy's `rules`")


class RuleChange(BaseModel):
    enabled: bool = Field(description="false: the rule stays in its strategy and decides nothing")


_SELECT = """
SELECT r.id, r.strategy_id, s.key AS strategy, r.key, r.version, r.state, r.definition, r.created_at, r.created_by,
       COALESCE((r.definition ->> 'enabled')::boolean, true) AS enabled
FROM rules AS r JOIN strategies AS s ON s.shop_id = r.shop_id AND s.id = r.strategy_id
WHERE r.shop_id = :shop
"""
_RULES = text(f"""{_SELECT}
  AND (CAST(:strategy AS uuid) IS NULL OR r.strategy_id = CAST(:strategy AS uuid))
  AND (CAST(:state AS text) IS NULL OR r.state = CAST(:state AS text))
  AND (CAST(:id AS uuid) IS NULL OR r.id = CAST(:id AS uuid))
ORDER BY r.key, r.version DESC
""")


def rules_of(
    session: Session, shop_id: UUID, *, strategy: UUID | None = None, state: str | None = None, rule: UUID | None = None
) -> list[Rule]:
    """Versions of rules, by key, newest first."""
    values = {"shop": shop_id, "strategy": strategy, "state": state, "id": rule}
    return [Rule(**row._mapping) for row in session.execute(_RULES, values)]


def _versions(session: Session, shop_id: UUID, rule: UUID) -> list[Rule]:
    found = rules_of(session, shop_id, rule=rule)
    if not found:
        raise NotFound(f"there is no rule {rule}; GET /api/rules lists them")
    return found


@router.get("", operation_id="list_rules", summary="Rules by key, every version", response_model=list[Rule])
def list_rules(
    caller: Reader,
    database: Database,
    strategy: Annotated[UUID | None, Query(description="Of this strategy only")] = None,
    state: Annotated[State | None, Query()] = None,
) -> list[Rule]:
    with for_shop(database, caller.shop.id) as session:
        return rules_of(session, caller.shop.id, strategy=strategy, state=state)


@router.get(
    "/{rule}",
    operation_id="get_rule",
    summary="Every version of one rule, newest first",
    response_model=list[Rule],
    responses=_MISSING,
)
def get_rule(
    rule: RuleId,
    caller: Reader,
    database: Database,
    conditions: Annotated[
        Literal["rules", "querybuilder"],
        Query(description="`querybuilder`: `if` as react-querybuilder has it; PUT takes it back"),
    ] = "rules",
) -> list[Rule]:
    with for_shop(database, caller.shop.id) as session:
        found = _versions(session, caller.shop.id, rule)
    if conditions == "querybuilder":
        for one in found:
            one.definition["if"] = forms.query(one.definition)
    return found


@router.post(
    "",
    operation_id="create_rule",
    summary="Add a rule to a strategy's draft",
    status_code=201,
    response_model=Rule,
    responses=_CHANGES,
    openapi_extra=described(NewRule.model_json_schema()),
)
def create_rule(
    body: Written, caller: Writer, database: Database, once: Idempotent, expected: ExpectedRevision
) -> Response:
    asked: NewRule = modelled(NewRule, body)

    def work(session: Session) -> Rule:
        shop = load_shop(session, caller.shop.id)
        made = rule_edits.add(
            session, shop, asked.strategy, asked.definition, at=SYSTEM.now(), actor=caller.actor,
            expected_revision=expected,
        )  # fmt: skip
        return _versions(session, shop.id, made)[0]

    return once.run(database, caller.shop.id, work, status=201)


@router.put(
    "/{rule}",
    operation_id="edit_rule",
    summary="Replace a rule in its strategy's draft",
    response_model=Rule,
    responses=_CHANGES,
    openapi_extra=described({"type": "object", "title": "RuleDefinition"}),
)
def edit_rule(
    rule: RuleId, body: Written, caller: Writer, database: Database, expected: ExpectedRevision, response: Response
) -> Rule:
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        row = rule_edits.replace(
            session, shop, rule, body, at=SYSTEM.now(), actor=caller.actor, expected_revision=expected
        )
        response.headers.update(etag(row.revision))
        return _versions(session, shop.id, rule)[0]


@router.patch(
    "/{rule}",
    operation_id="switch_rule",
    summary="Switch a rule on or off in its strategy's draft",
    response_model=Rule,
    responses=_CHANGES,
)
def switch_rule(
    rule: RuleId, body: RuleChange, caller: Writer, database: Database, expected: ExpectedRevision, response: Response
) -> Rule:
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        row = rule_edits.switch(
            session, shop, rule, enabled=body.enabled, at=SYSTEM.now(), actor=caller.actor, expected_revision=expected
        )
        response.headers.update(etag(row.revision))
        return _versions(session, shop.id, rule)[0]


@router.delete(
    "/{rule}",
    operation_id="remove_rule",
    summary="Take a rule out of its strategy's draft",
    status_code=204,
    responses=_CHANGES,
)
def remove_rule(rule: RuleId, caller: Writer, database: Database, expected: ExpectedRevision) -> Response:
    """What is live goes on until the draft is published; then the rule retires, and all its versions are kept."""
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        row = rule_edits.remove(session, shop, rule, at=SYSTEM.now(), actor=caller.actor, expected_revision=expected)
        return Response(status_code=204, headers=etag(row.revision))
