"""Clusterings: the versions that were fitted, their clusters, and asking for a new one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.dependencies import Database, Requires
from api.errors import Problem
from api.idempotency import Idempotent
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import NotFound
from operation_agent.store import audit, outbox, ticks
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

router = APIRouter(prefix="/api/clusterings", tags=["clusterings"])
Reader = Annotated[Principal, Depends(Requires("clusterings:read"))]


class Cluster(BaseModel):
    number: int
    lineage_id: UUID = Field(description="What a rule points at; a refit hands it on only to the same people")
    parent: dict[str, Any] = Field(description="The previous lineage, overlap, shift and verdict")
    label_key: str
    labels: dict[str, Any]
    size: int
    profile: dict[str, Any] = Field(description="Median of each feature, in its own unit")


class ClusteringSummary(BaseModel):
    id: UUID
    version: int
    state: str = Field(description="`live`, `retired` or `inconclusive`")
    k: int | None
    customers: int
    as_of: datetime = Field(description="Shop time")
    fitted_at: datetime = Field(description="System time")


class Clustering(ClusteringSummary):
    features: list[str]
    quality: dict[str, Any] = Field(description="Silhouette, stability, every k that was tried; or the reason for none")
    clusters: list[Cluster]


class Asked(BaseModel):
    """The work was written down and will be done by a worker."""

    state: str = "queued"
    as_of: datetime = Field(description="Shop time it was asked for at")


def ask(session: Session, shop_id: UUID, topic: str, *, actor: str) -> Asked:
    """Write down that the job `topic` is wanted as of the shop's now: a tick, a wake-up and an audit entry."""
    shop, at = load_shop(session, shop_id), SYSTEM.now()
    as_of = shop.now()
    ticks.take(session, shop_id, topic, as_of, at=at)
    audit.record(session, shop_id, at=at, actor=actor, verb=f"{topic}.asked", subject=f"shop:{shop.slug}")
    outbox.ring(session, shop_id, [(topic, "")], at=at)
    return Asked(as_of=as_of)


_LIST = text("""
SELECT id, version, state, k, customers, as_of, fitted_at FROM clusterings
WHERE shop_id = :shop AND (CAST(:before AS bigint) IS NULL OR version < CAST(:before AS bigint))
ORDER BY version DESC LIMIT :limit
""")


@router.get(
    "",
    operation_id="list_clusterings",
    summary="Versions of the clustering, newest first",
    response_model=Page[ClusteringSummary],
)
def list_all(caller: Reader, database: Database, paging: Paged) -> Any:
    (before,) = paging.after(int)
    with for_shop(database, caller.shop.id) as session:
        rows = session.execute(_LIST, {"shop": caller.shop.id, "before": before, "limit": paging.limit + 1}).all()
    return paging.page(rows, lambda row: ClusteringSummary(**row._mapping), lambda row: (row.version,))


@router.get(
    "/{clustering_id}",
    operation_id="get_clustering",
    summary="One version with its clusters",
    response_model=Clustering,
    responses={404: {"model": Problem, "description": "No such clustering in this shop"}},
)
def get(clustering_id: UUID, caller: Reader, database: Database) -> Clustering:
    values = {"shop": caller.shop.id, "id": clustering_id}
    with for_shop(database, caller.shop.id) as session:
        row = session.execute(
            text(
                "SELECT id, version, state, k, customers, as_of, fitted_at, features, quality FROM clusterings"
                " WHERE shop_id = :shop AND id = :id"
            ),
            values,
        ).one_or_none()
        if row is None:
            raise NotFound(f"there is no clustering {clustering_id}")
        clusters = session.execute(
            text(
                "SELECT number, lineage_id, parent, label_key, labels, size, profile FROM clusters"
                " WHERE shop_id = :shop AND clustering_id = :id ORDER BY number"
            ),
            values,
        )
        return Clustering(**row._mapping, clusters=[Cluster(**one._mapping) for one in clusters])


@router.post(
    "",
    operation_id="fit_clustering",
    summary="Ask for a new clustering",
    status_code=202,
    response_model=Asked,
    responses={409: {"model": Problem, "description": "The Idempotency-Key was used for another request"}},
)
def fit(
    caller: Annotated[Principal, Depends(Requires("clusterings:write"))], database: Database, once: Idempotent
) -> Response:
    return once.run(
        database,
        caller.shop.id,
        lambda session: ask(session, caller.shop.id, ticks.CLUSTERING, actor=caller.actor),
        status=202,
    )
