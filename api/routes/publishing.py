"""From a strategy's draft to what counts: editing, comparing, publishing, going back, and who did what."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database
from api.documents import DEFINITION, ExpectedRevision, Written, described, etag
from api.fields import Text
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from api.routes.strategies import CHANGES, MISSING, Name, Reader, Strategy, Writer, whole
from operation_agent.journeys.publishing import lead_out
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict
from operation_agent.rehearsal.impact import audience
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.strategies import authoring, document, forms, records, versions

router = APIRouter(prefix="/api/strategies/{strategy}", tags=["strategies"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Which = Annotated[str, Query(pattern=r"^(live|draft|[1-9][0-9]{0,8})$", description="A version, `live` or `draft`")]


class VersionSummary(BaseModel):
    """One version of a strategy; all times are system time."""

    version: int
    state: str = Field(description="`draft`, `live` (the one that counts) or `retired`")
    created_at: datetime
    created_by: str
    edited_at: datetime
    authors: list[str] = Field(description="Everybody who wrote at it as a draft; none of them may approve it")
    published_at: datetime | None
    published_by: str | None
    note: str


class Version(VersionSummary):
    definition: dict[str, Any]
    revision: int = Field(description="Of the strategy; goes into If-Match")


class Difference(BaseModel):
    before: int | None = Field(description="A version; null: the strategy was never live, so everything is new")
    after: int
    changes: list[dict[str, Any]]


class Publishing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    note: Text = Field("", max_length=2_000, description="Why; kept with the version")
    in_flight: Literal["finish", "exit"] = Field(
        "finish",
        description="Who is under way in a rule that changes: `finish` on the version they entered, or `exit` now",
    )
    revision: int | None = Field(None, ge=1, le=2**31 - 1, description="As If-Match: 409 when it has changed since")


class RollBack(Publishing):
    version: int = Field(ge=1, le=2**31 - 1, description="The version whose definition is to count again")


class ApprovalRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(None, ge=1, le=2**31 - 1, description="To go back to; by default the draft")


class AskedApproval(BaseModel):
    """What publishing needs; `approval` null: nobody's yes."""

    approval: UUID | None
    state: str | None = Field(description="`pending`, `granted`, `rejected` or `expired`")
    needed: int = Field(description="How many other people must say yes")
    why: list[dict[str, Any]]
    expires_at: datetime | None


class PublishedVersion(BaseModel):
    version: int
    before: int | None = Field(description="The version that counted until now")
    changes: list[dict[str, Any]]
    rules_changed: list[UUID]
    rules_retired: list[UUID]
    exited: int = Field(description="How many customers were taken out of arms they were in")
    called_off: int = Field(description="How many planned actions were called off with that")
    strategy: Strategy


class HistoryEntry(BaseModel):
    seq: int
    at: datetime
    actor: str
    verb: str
    detail: dict[str, Any]


def _shown(found: versions.Version) -> dict[str, Any]:
    return {name: getattr(found, name) for name in VersionSummary.model_fields}


def _which(written: str) -> authoring.Reference:
    return int(written) if written.isdigit() else written  # type: ignore[return-value]


@router.get(
    "/draft",
    operation_id="get_draft",
    summary="What is being edited; as YAML with ?format=yaml",
    response_model=Version,
    responses=MISSING,
)
def get_draft(
    strategy: Name,
    caller: Reader,
    database: Database,
    response: Response,
    format: Annotated[Literal["json", "yaml"], Query(description="yaml: the definition alone, as a file")] = "json",
) -> Any:
    with for_shop(database, caller.shop.id) as session:
        row = records.find(session, caller.shop.id, strategy)
        draft = authoring.at_version(session, caller.shop.id, row, "draft")
    if format == "yaml":
        written = document.write(records.read(draft.definition).to_dict())
        return Response(written, headers=etag(row.revision), media_type="application/yaml")
    response.headers.update(etag(row.revision))
    return Version(**_shown(draft), definition=draft.definition, revision=row.revision)


@router.put(
    "/draft",
    operation_id="save_draft",
    summary="Edit a strategy: the body becomes its draft",
    response_model=Version,
    responses=CHANGES,
    openapi_extra=described(DEFINITION),
)
def save_draft(
    strategy: Name, body: Written, caller: Writer, database: Database, expected: ExpectedRevision, response: Response
) -> Version:
    """What is live goes on as it is until the draft is published."""
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        row = records.hold(session, shop.id, strategy, expected_revision=expected)
        made = forms.read_of_shop(session, shop.id, body)
        row = authoring.save_draft(session, shop, row.key, made, at=SYSTEM.now(), actor=caller.actor)
        draft = authoring.at_version(session, shop.id, row, "draft")
    response.headers.update(etag(row.revision))
    return Version(**_shown(draft), definition=draft.definition, revision=row.revision)


@router.delete(
    "/draft",
    operation_id="discard_draft",
    summary="Forget the draft beside a live version",
    response_model=Strategy,
    responses=CHANGES,
)
def discard_draft(
    strategy: Name, caller: Writer, database: Database, expected: ExpectedRevision, response: Response
) -> Strategy:
    with for_shop(database, caller.shop.id) as session:
        shop = load_shop(session, caller.shop.id)
        row = authoring.discard_draft(
            session, shop, strategy, at=SYSTEM.now(), actor=caller.actor, expected_revision=expected
        )
        response.headers.update(etag(row.revision))
        return whole(session, shop.id, row)


@router.get(
    "/versions",
    operation_id="list_versions",
    summary="Every version, newest first",
    response_model=Page[VersionSummary],
    responses=MISSING,
)
def list_versions(strategy: Name, caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(int)
    with for_shop(database, caller.shop.id) as session:
        row = records.find(session, caller.shop.id, strategy)
        found = versions.list_versions(session, caller.shop.id, row.id, before=before, limit=paging.limit + 1)
    return paging.page(found, lambda one: VersionSummary(**_shown(one)), lambda one: (one.version,))


@router.get(
    "/versions/{version}",
    operation_id="get_version",
    summary="One version with its definition",
    response_model=Version,
    responses=MISSING,
)
def get_version(strategy: Name, version: Number, caller: Reader, database: Database) -> Version:
    with for_shop(database, caller.shop.id) as session:
        row = records.find(session, caller.shop.id, strategy)
        found = versions.get(session, caller.shop.id, row.id, version)
    return Version(**_shown(found), definition=found.definition, revision=row.revision)


@router.get(
    "/diff",
    operation_id="compare_versions",
    summary="What changed from one version to another; by default from live to draft",
    response_model=Difference,
    responses=MISSING,
)
def compare_versions(
    strategy: Name,
    caller: Reader,
    database: Database,
    before: Annotated[Which, Query(alias="from")] = "live",
    after: Annotated[Which, Query(alias="to")] = "draft",
) -> Difference:
    with for_shop(database, caller.shop.id) as session:
        row = records.find(session, caller.shop.id, strategy)
        first, second, found = authoring.difference(session, caller.shop.id, row, _which(before), _which(after))
    version = first.version if first is not None else None
    return Difference(before=version, after=second.version, changes=[asdict(one) for one in found])


@router.post(
    "/approval",
    operation_id="ask_approval",
    summary="Ask for the yes that publishing needs",
    response_model=AskedApproval,
    responses=CHANGES,
)
def ask_approval(
    strategy: Name, body: ApprovalRequest, caller: Writer, database: Database, once: Idempotent,
    expected: ExpectedRevision,
) -> Response:  # fmt: skip
    """The same question again is the one that is there. None of the draft's authors, nor who asks, may answer it; an
    edit of the draft is another question."""

    def work(session: Session) -> AskedApproval:
        shop, at = load_shop(session, caller.shop.id), SYSTEM.now()
        asked = authoring.ask_approval(
            session, shop, strategy, version=body.version, at=at, actor=caller.actor, expected_revision=expected,
            audience=audience(session, shop, at=at + shop.clock_offset),
        )  # fmt: skip
        if asked is None:
            return AskedApproval(approval=None, state=None, needed=0, why=[], expires_at=None)
        return AskedApproval(
            approval=asked.id, state=asked.state, needed=asked.needed, why=[dict(one) for one in asked.why],
            expires_at=asked.expires_at,
        )  # fmt: skip

    return once.run(database, caller.shop.id, work, status=200)


@router.post(
    "/publish",
    operation_id="publish_strategy",
    summary="Make the draft what counts",
    response_model=PublishedVersion,
    responses=CHANGES,
)
def publish_strategy(
    strategy: Name, body: Publishing, caller: Writer, database: Database, once: Idempotent, expected: ExpectedRevision
) -> Response:
    """Only rules that changed get a new version; rules that are gone retire. 409 `approval_needed` until another
    person has said yes (POST …/approval asks)."""

    def work(session: Session) -> PublishedVersion:
        shop, at = load_shop(session, caller.shop.id), SYSTEM.now()
        done = authoring.publish(
            session, shop, strategy, at=at, actor=caller.actor, note=body.note, in_flight=body.in_flight,
            expected_revision=_one(expected, body.revision),
            audience=audience(session, shop, at=at + shop.clock_offset),
        )  # fmt: skip
        return _published(session, shop, done, at)

    return once.run(database, caller.shop.id, work, status=200)


@router.post(
    "/rollback",
    operation_id="roll_back_strategy",
    summary="Publish an earlier version again, as a new one",
    response_model=PublishedVersion,
    responses=CHANGES,
)
def roll_back_strategy(
    strategy: Name, body: RollBack, caller: Writer, database: Database, once: Idempotent, expected: ExpectedRevision
) -> Response:
    """A draft that is being edited stays as it is."""

    def work(session: Session) -> PublishedVersion:
        shop, at = load_shop(session, caller.shop.id), SYSTEM.now()
        done = authoring.roll_back(
            session, shop, strategy, body.version, at=at, actor=caller.actor, note=body.note,
            in_flight=body.in_flight, expected_revision=_one(expected, body.revision),
            audience=audience(session, shop, at=at + shop.clock_offset),
        )  # fmt: skip
        return _published(session, shop, done, at)

    return once.run(database, caller.shop.id, work, status=200)


def _published(session: Session, shop: Shop, done: authoring.Published, at: datetime) -> PublishedVersion:
    left = lead_out(session, shop, done, at=at)
    return PublishedVersion(
        version=done.version, before=done.before, changes=[asdict(one) for one in done.changes],
        rules_changed=list(done.rules_changed), rules_retired=list(done.rules_retired),
        exited=left.runs, called_off=left.actions,
        strategy=whole(session, shop.id, done.strategy),
    )  # fmt: skip


def _one(header: int | None, body: int | None) -> int | None:
    if header is not None and body is not None and header != body:
        raise Conflict("If-Match and `revision` name two revisions; send one", code="revision", where="revision")
    return header if header is not None else body


_HISTORY = text("""
SELECT seq, at, actor, verb, detail FROM audit_log
WHERE shop_id = :shop AND subject = :subject AND (CAST(:before AS bigint) IS NULL OR seq < CAST(:before AS bigint))
ORDER BY seq DESC LIMIT :limit
""")


@router.get(
    "/history",
    operation_id="list_strategy_history",
    summary="Who changed what, before and after; newest first",
    response_model=Page[HistoryEntry],
    responses=MISSING,
)
def list_history(strategy: Name, caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(int)
    with for_shop(database, caller.shop.id) as session:
        row = records.find(session, caller.shop.id, strategy)
        values = {
            "shop": caller.shop.id, "subject": f"strategy:{row.key}", "before": before, "limit": paging.limit + 1,
        }  # fmt: skip
        rows = session.execute(_HISTORY, values).all()
    return paging.page(rows, lambda one: HistoryEntry(**one._mapping), lambda one: (one.seq,))
