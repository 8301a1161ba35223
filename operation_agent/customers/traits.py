"""Traits: what a customer's profile says, each with the moment it was said, so that the newest saying wins.

Pure: the same sayings in any order give the same profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

COLUMNS = ("email", "phone", "first_name", "last_name", "locale", "time_zone", "country")
"""Traits that also are columns of `customers`."""

_ALIASES = {"firstName": "first_name", "lastName": "last_name", "timezone": "time_zone", "timeZone": "time_zone"}


@dataclass(slots=True)
class Profile:
    """`traits` by name, and in `times` when each was said (ISO 8601, UTC, microseconds: compares as text)."""

    traits: dict[str, Any] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)

    def say(self, traits: Mapping[str, Any], at: datetime) -> None:
        """Take sayings of moment `at` (shop time). A tie goes to the greater value, so that order does not matter."""
        moment = at.astimezone(UTC).isoformat(timespec="microseconds")
        for name, value in normalise(traits).items():
            self._put(name, value, moment)

    def absorb(self, other: Profile) -> None:
        """Take every saying of another profile (of a merged customer)."""
        for name, value in other.traits.items():
            self._put(name, value, other.times.get(name, ""))

    def _put(self, name: str, value: Any, moment: str) -> None:
        said = self.times.get(name)
        newer = (moment, _sortable(value)) > (said or "", _sortable(self.traits.get(name)))
        if name not in self.traits or newer:
            self.traits[name] = value
            self.times[name] = moment

    def column(self, name: str) -> str | None:
        value = self.traits.get(name)
        return str(value) if value not in (None, "") else None


def _sortable(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str)


def normalise(traits: Mapping[str, Any]) -> dict[str, Any]:
    """Segment's names of well-known traits as ours; `address.country` as `country`."""
    named = {_ALIASES.get(name, name): value for name, value in traits.items()}
    address = named.get("address")
    if "country" not in named and isinstance(address, Mapping) and address.get("country"):
        named["country"] = address["country"]
    return named
