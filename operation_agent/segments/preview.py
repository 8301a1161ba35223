"""Who would meet a condition now: how many, and some of them with the values that were seen. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy.orm import Session

from operation_agent.clustering import membership as clusters_of
from operation_agent.customers import features
from operation_agent.store.shops import Shop
from rules.condition import Condition
from rules.evaluate import compile

from . import columns as people
from .columns import Rows, Wanted
from .membership import PART

SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Met:
    """A customer who meets the condition. `seen`: every comparison with the value seen, as LeafResult.to_dict."""

    customer_id: UUID
    seen: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Preview:
    """`size` of `customers` meet it; of `unknown` it cannot be told, because something is missing. `sample`: the first
    SAMPLE of them in the order of random keys, which is a random sample and the same every time."""

    customers: int
    size: int
    unknown: int
    sample: list[Met]


def preview(session: Session, shop: Shop, condition: Condition, as_of: datetime) -> Preview:
    """Hold every customer there was at `as_of` (shop time) against the condition; segments in it are as stored."""
    compiled = compile(condition)
    wanted = Wanted.of([compiled])
    everyone = features.compute_all(session, shop.id, as_of)
    size = unknown = 0
    sample: list[Met] = []
    for start in range(0, len(everyone), PART):
        table = everyone.part(start, start + PART)
        clusters = clusters_of.assign(session, shop.id, table).clusters
        columns = people.load(session, shop, Rows.of(table), table.columns, clusters, wanted)
        found = compiled.evaluate(columns, len(table))
        size, unknown = size + int(found.matched.sum()), unknown + int(found.unknown.sum())
        for row in np.flatnonzero(found.matched)[: SAMPLE - len(sample)].tolist():
            sample.append(Met(table.customer_ids[row], [leaf.to_dict() for leaf in found.explain(row)]))
    return Preview(len(everyone), size, unknown, sample)
