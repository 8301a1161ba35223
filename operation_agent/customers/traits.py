"""Traits: what a customer's profile says, each with the moment it was said, so that the newest saying wins.

Tags are a trait each, `tag:vip` true or false, so that the newest saying of each wins; `tags` is the sorted list of
those that are true. A list of all tags says of every other tag that it is not there. So conditions may ask for
`trait.tag:vip`, or what `trait.tags` holds.

Pure: the same sayings in any order give the same profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

COLUMNS = ("email", "phone", "first_name", "last_name", "locale", "time_zone", "country")
"""Traits that also are columns of `customers`."""

TAG, TAGS, DELETED = "tag:", "tags", "deleted_at"
_NEVER = "0001-01-01T00:00:00.000000+00:00"
ALL = "tags:all"
"""In `times` only: when all tags were listed last."""
_ALIASES = {"firstName": "first_name", "lastName": "last_name", "timezone": "time_zone", "timeZone": "time_zone"}


@dataclass(slots=True)
class Profile:
    """`traits` by name, and in `times` when each was said (ISO 8601, UTC, microseconds: compares as text)."""

    traits: dict[str, Any] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)

    def say(self, traits: Mapping[str, Any], at: datetime) -> None:
        """Take sayings of moment `at` (shop time). A tie goes to the greater value, so that order does not matter.

        `deleted_at` and `tag:…` are not for anybody to say.
        """
        moment = _moment(at)
        for name, value in normalise(traits).items():
            if name == TAGS:
                self._all_tags(_tags(value), moment)
            elif name != DELETED and not name.startswith(TAG):
                self._put(name, value, moment)

    def tag(self, added: Sequence[str], removed: Sequence[str], at: datetime) -> None:
        """Take tags that were given and taken away at `at`; of one that was both, it is there."""
        if not _tags(list(added)) and not _tags(list(removed)):
            return
        moment = _moment(at)
        self._unfold()
        for names, is_there in ((removed, False), (added, True)):
            for name in _tags(list(names)):
                self._put(TAG + name, is_there, moment)
        self._end_tags("")

    def delete(self, at: datetime) -> None:
        """The shop deleted its record of this customer: the latest time stands."""
        self._put(DELETED, _moment(at), _moment(at))

    def absorb(self, other: Profile) -> None:
        """Take every saying of another profile (of a merged customer)."""
        for name, value in other.traits.items():
            if name != TAGS and not name.startswith(TAG):
                self._put(name, value, other.times.get(name, ""))
        if TAGS in self.traits or TAGS in other.traits:
            heard = Profile(dict(other.traits), dict(other.times))
            heard._unfold()
            self._unfold()
            for name in heard._tag_names():
                self._put(name, heard.traits[name], heard.times[name])
            self._end_tags(heard.times.get(ALL, ""))

    def _all_tags(self, names: Iterable[str], moment: str) -> None:
        self._unfold()
        for name in names:
            self._put(TAG + name, True, moment)
        self._end_tags(moment)

    def _end_tags(self, listed: str) -> None:
        """What was said before the newest list of all tags, and is not on it, is not there."""
        listed = max(self.times.get(ALL, ""), listed)
        if listed:
            self.times[ALL] = listed
        for name in self._tag_names():
            if self.times[name] < listed:
                self.traits[name], self.times[name] = False, listed
        self.traits[TAGS] = sorted(name.removeprefix(TAG) for name in self._tag_names() if self.traits[name])
        self.times[TAGS] = max(listed, *(self.times[name] for name in self._tag_names()), "")

    def _tag_names(self) -> list[str]:
        return [name for name in self.traits if name.startswith(TAG) and name in self.times]

    def _unfold(self) -> None:
        """A profile from before tags were traits each has a list only."""
        if TAGS in self.traits and ALL not in self.times and not self._tag_names():
            moment = self.times.get(TAGS) or _NEVER
            for name in _tags(self.traits[TAGS]):
                self._put(TAG + name, True, moment)
            self.times[ALL] = moment

    def _put(self, name: str, value: Any, moment: str) -> None:
        said = self.times.get(name)
        newer = (moment, _sortable(value)) > (said or "", _sortable(self.traits.get(name)))
        if name not in self.traits or newer:
            self.traits[name] = value
            self.times[name] = moment

    def column(self, name: str) -> str | None:
        value = self.traits.get(name)
        return str(value) if value not in (None, "") else None


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _tags(value: Any) -> list[str]:
    """Tags as a list, or as text with commas between them, as Shopify's older versions write them; else none."""
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return sorted({tag.strip() for tag in given if isinstance(tag, str) and tag.strip()})


def _sortable(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str)


def normalise(traits: Mapping[str, Any]) -> dict[str, Any]:
    """Segment's names of well-known traits as ours; `address.country` as `country`."""
    named = {_ALIASES.get(name, name): value for name, value in traits.items()}
    address = named.get("address")
    if "country" not in named and isinstance(address, Mapping) and address.get("country"):
        named["country"] = address["country"]
    return named
