"""That a customer has come into a group, or left it: a segment, or a cluster by its label."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

Way = Literal["entered", "left"]


@dataclass(frozen=True, slots=True)
class Moved:
    """`group`: such as "segment.vip" or "cluster.at_risk". `at`: shop time of the facts that moved the customer.
    `row`: the row of the table given at which it was found out."""

    customer_id: UUID
    random_key: UUID
    group: str
    way: Way
    at: datetime
    row: int
