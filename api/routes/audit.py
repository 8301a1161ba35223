"""Who did what, and whether that record is whole."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import text

from api.dependencies import Database, Requires
from api.fields import Text
from api.pagination import Paged
from operation_agent.access.principal import Principal
from operation_agent.store import audit
from operation_agent.store.session import for_shop

router = APIRouter(prefix="/api/audit", tags=["audit"])


class AuditEntry(BaseModel):
    seq: int
    at: datetime
    actor: str
    verb: str
    subject: str
    detail: dict[str, Any]
    hash: str = Field(description="Hex; covers the entry and the hash before it")


class AuditPage(BaseModel):
    items: list[AuditEntry]
    next: str | None
    whole: bool | None = Field(description="Whether the chain of hashes fits; null: not asked for with ?verify=true")
    broken_at: int | None = Field(description="The first entry that does not fit the chain")


_LIST = text("""
SELECT seq, at, actor, verb, subject, detail, encode(hash, 'hex') AS hash FROM audit_log
WHERE shop_id = :shop AND (CAST(:before AS bigint) IS NULL OR seq < CAST(:before AS bigint))
  AND (CAST(:verb AS text) IS NULL OR verb = CAST(:verb AS text))
  AND (CAST(:subject AS text) IS NULL OR subject = CAST(:subject AS text))
ORDER BY seq DESC LIMIT :limit
""")


@router.get("", operation_id="list_audit", summary="The audit log, newest first", response_model=AuditPage)
def list_all(
    caller: Annotated[Principal, Depends(Requires("audit:read"))],
    database: Database,
    paging: Paged,
    verb: Annotated[Text | None, Query(max_length=100, examples=["strategy.started"])] = None,
    subject: Annotated[Text | None, Query(max_length=300)] = None,
    verify: Annotated[bool, Query(description="Walk the whole chain and say whether it fits")] = False,
) -> Any:
    (before,) = paging.after(int)
    shop_id = caller.shop.id
    values = {"shop": shop_id, "before": before, "verb": verb, "subject": subject, "limit": paging.limit + 1}
    with for_shop(database, shop_id) as session:
        rows = session.execute(_LIST, values).all()
        broken_at = audit.verify(session, shop_id) if verify else None
    page = paging.page(rows, lambda row: AuditEntry(**row._mapping), lambda row: (row.seq,))
    return {**page, "whole": broken_at is None if verify else None, "broken_at": broken_at}
