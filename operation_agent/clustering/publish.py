"""Writing a fit down: its clusters with names and lineages, which one is live, and what ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.kit.ids import new_id
from operation_agent.kit.money import minor_digits
from operation_agent.store import audit
from operation_agent.store.shops import Shop

from . import labels, lineage, membership
from .fit import Fit, Inconclusive
from .membership import Live


@dataclass(frozen=True, slots=True)
class Occasion:
    """Of one run: `as_of` is the features' shop time, `now` system time, `customers` how many there were."""

    shop: Shop
    as_of: datetime
    now: datetime
    actor: str
    customers: int


@dataclass(frozen=True, eq=False)
class Described:
    """`clusters`: their rows, by number. `ended`: the lineages without a successor and what became of each."""

    clusters: list[dict[str, Any]]
    ended: list[dict[str, Any]]


# -- what the clusters are ----------------------------------------------------------------------------------------


def describe(
    found: Fit, columns: Mapping[str, np.ndarray], profiled: tuple[str, ...], previous: Live | None, currency: str
) -> Described:
    """Names and lineages of a fit over `columns` (name -> values, in the rows of the fit)."""
    groups, everybody = labels.profiles({name: columns[name] for name in profiled}, found.numbers, found.model.k)
    named = labels.label(groups, everybody, currency_digits=minor_digits(currency), currency=currency)
    kin = _lineage(found, columns, previous)
    ids = [_lineage_id(heir, previous) for heir in kin.heirs]
    clusters = [
        {
            "number": heir.number,
            "lineage_id": lineage_id,
            "parent": _parent(heir, previous),
            "label_key": name.key,
            "labels": name.labels,
            "size": group.size,
            "profile": group.as_json(),
        }
        for heir, lineage_id, name, group in zip(kin.heirs, ids, named, groups, strict=True)
    ]
    return Described(clusters, [_ended(one, previous, ids) for one in kin.ended if previous is not None])


def _lineage(found: Fit, columns: Mapping[str, np.ndarray], previous: Live | None) -> lineage.Lineage:
    k = found.model.k
    if previous is None:
        return lineage.first(k)
    old = previous.model
    scaled = old.scaled(old.matrix(columns))
    numbers, _ = old.nearest(scaled)
    shifts = lineage.shift(scaled, found.numbers, numbers, old.centroids, k)
    return lineage.match(found.numbers, numbers, k_new=k, k_old=old.k, shifts=shifts)


def _lineage_id(heir: lineage.Heir, previous: Live | None) -> UUID:
    if heir.verdict == "same" and previous is not None and heir.previous is not None:
        return previous.clusters[heir.previous]["lineage_id"]
    return new_id()


def _parent(heir: lineage.Heir, previous: Live | None) -> dict[str, Any]:
    def old(number: int | None) -> str | None:
        return None if previous is None or number is None else str(previous.clusters[number]["lineage_id"])

    return {
        "verdict": heir.verdict,
        "kind": heir.kind,
        "lineage_id": old(heir.previous),
        "overlap": round(heir.overlap, 4),
        "shift": None if heir.shift is None else round(heir.shift, 4),
        "sources": [old(number) for number in heir.sources],
    }


def _ended(one: lineage.Ended, previous: Live, ids: list[UUID]) -> dict[str, Any]:
    before = previous.clusters[one.previous]
    return {
        "lineage_id": str(before["lineage_id"]),
        "label_key": before["label_key"],
        "label": {language: before["labels"][language] for language in labels.LANGUAGES},
        "fate": one.fate,
        "into": [str(ids[number]) for number in one.into],
        "overlap": round(one.overlap, 4),
    }


# -- rows ---------------------------------------------------------------------------------------------------------

_INSERT_CLUSTERING = text("""
INSERT INTO clusterings (shop_id, id, version, state, features, k, model, quality, customers, as_of, fitted_at)
VALUES (:shop, :id, (SELECT COALESCE(max(version), 0) + 1 FROM clusterings WHERE shop_id = :shop), :state,
        CAST(:features AS text[]), :k, CAST(:model AS jsonb), CAST(:quality AS jsonb), :customers, :as_of, :now)
RETURNING version
""")
_INSERT_CLUSTERS = text("""
INSERT INTO clusters (shop_id, clustering_id, number, lineage_id, parent, label_key, labels, size, profile)
SELECT :shop, :clustering, c.number, c.lineage_id, c.parent, c.label_key, c.labels, c.size, c.profile
FROM jsonb_to_recordset(CAST(:clusters AS jsonb)) AS c (number smallint, lineage_id uuid, parent jsonb, label_key text,
                                                         labels jsonb, size bigint, profile jsonb)
""")


def _insert(
    session: Session, occasion: Occasion, state: str, features: list[str], k: int | None, model: Any, quality: Any
) -> tuple[UUID, int]:
    clustering_id = new_id()
    values = {
        "shop": occasion.shop.id,
        "id": clustering_id,
        "state": state,
        "features": features,
        "k": k,
        "model": _json(model),
        "quality": _json(quality),
        "customers": occasion.customers,
        "as_of": occasion.as_of,
        "now": occasion.now,
    }
    return clustering_id, session.execute(_INSERT_CLUSTERING, values).scalar_one()


def go_live(session: Session, occasion: Occasion, found: Fit, described: Described, previous: Live | None) -> Live:
    """Make the fit the shop's live clustering; its members are still to be assigned. The audit names what ended."""
    shop_id = occasion.shop.id
    # waits for transactions that assign by the old model; those that come after will see the new one
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": membership.lock_key(shop_id)}
    )
    session.execute(
        text("UPDATE clusterings SET state = 'retired' WHERE shop_id = :shop AND state = 'live'"), {"shop": shop_id}
    )
    model = found.model
    clustering_id, version = _insert(
        session, occasion, "live", list(model.features), model.k, model.to_json(), found.quality
    )
    values = {"shop": shop_id, "clustering": clustering_id, "clusters": _json(described.clusters)}
    session.execute(_INSERT_CLUSTERS, values)
    by_verdict = {
        verdict: [str(one["lineage_id"]) for one in described.clusters if one["parent"]["verdict"] == verdict]
        for verdict in ("same", "new")
    }
    detail = {
        "version": version,
        "previous": previous and str(previous.id),
        "customers": occasion.customers,
        "lineages_kept": by_verdict["same"],
        "lineages_new": by_verdict["new"],
        "lineages_ended": described.ended,
    }
    _audit(session, occasion, "clustering.live", clustering_id, detail)
    live = membership.live_model(session, shop_id)
    assert live is not None
    return live


def record_inconclusive(
    session: Session, occasion: Occasion, found: Inconclusive, features: list[str], previous: Live | None
) -> tuple[UUID, int, dict[str, Any]]:
    """Keep the reason and every figure; the live clustering stays. Returns id, version and quality."""
    quality = {"code": found.code, "reason": found.reason, **found.quality}
    clustering_id, version = _insert(session, occasion, "inconclusive", features, None, {}, quality)
    detail = {"version": version, "code": found.code, "reason": found.reason, "live": previous and str(previous.id)}
    _audit(session, occasion, "clustering.inconclusive", clustering_id, detail)
    return clustering_id, version, quality


def _audit(session: Session, occasion: Occasion, verb: str, clustering_id: UUID, detail: dict[str, Any]) -> None:
    subject = f"clustering:{clustering_id}"
    audit.record(
        session, occasion.shop.id, at=occasion.now, actor=occasion.actor, verb=verb, subject=subject, detail=detail
    )


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()
