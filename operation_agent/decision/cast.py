"""The customers of a call by number, with what is known of each: looked up once, however many rules take them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from .facts import Trigger
from .history import UNKNOWN_PERSON, History, Past, Person


class Cast:
    """`codes`: of each trigger, the number of its customer. `people` and `pasts` by that number; None: no past."""

    def __init__(self, triggers: Sequence[Trigger], history: History, zone: str):
        self.triggers, self.history, self.zone = triggers, history, zone
        numbers: dict[UUID, int] = {}
        self.code = [numbers.setdefault(one.customer_id, len(numbers)) for one in triggers]
        self.codes: NDArray[np.int64] = np.array(self.code, np.int64)
        self.people: list[Person] = [history.people.get(one, UNKNOWN_PERSON) for one in numbers]
        self.pasts: list[Past | None] = [history.past.get(one) for one in numbers]
        self._whos: list[str] = [""] * len(numbers)
        self._times: dict[int, tuple[datetime, float]] = {}

    def past_of(self, row: int) -> Past:
        """Made where there is none yet."""
        found = self.pasts[self.code[row]]
        if found is None:
            found = self.history.past_of(self.triggers[row].customer_id)
            self.pasts[self.code[row]] = found
        return found

    def zone_of(self, row: int) -> str:
        return self.people[self.code[row]].zone or self.zone

    def who(self, row: int) -> str:
        """The random key that draws are made of."""
        code = self.code[row]
        if not self._whos[code]:
            self._whos[code] = str(self.triggers[row].random_key)
        return self._whos[code]

    def at(self, row: int) -> float:
        """The moment of the decision in seconds since 1970; a schedule's triggers share one."""
        at = self.triggers[row].at
        known = self._times.get(id(at))
        if known is None:
            known = self._times[id(at)] = (at, at.timestamp())
        return known[1]

    def ranks(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Of each row its trigger's place by what is the same in every run; alike where no customer comes twice."""
        listed = [self.triggers[row] for row in rows.tolist()]
        if len(self.people) == len(self.triggers) or all(one.event is None and one.group is None for one in listed):
            return np.zeros(len(listed), np.int64)
        keys = {key: rank for rank, key in enumerate(sorted({one.key for one in listed}))}
        return np.array([keys[one.key] for one in listed], np.int64)
