"""What sets a strategy's rules off on the test bench: an event, a schedule, a move between groups, a missed goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from operation_agent.decision.facts import SCHEDULE, Trigger
from operation_agent.events import storable
from operation_agent.events.catalogue import TYPES
from operation_agent.events.event import Event
from operation_agent.journeys.watches import MISSED
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule

Kind = Literal["event", "schedule", "missed", "entered", "left"]
KINDS: tuple[Kind, ...] = ("event", "schedule", "missed", "entered", "left")
_SOURCE = "rehearsal"


@dataclass(frozen=True, slots=True)
class Trial:
    """`type`, `name` and `properties` are those of the event, of one that began a watch for `missed`; `group` what was
    `entered` or `left`, such as "segment.vip"."""

    kind: Kind
    type: str | None = None
    name: str | None = None
    properties: Mapping[str, Any] | None = None
    group: str | None = None

    def event(self, shop: Shop, at: datetime) -> Event | None:
        """The event in its normal form, of `at` (shop time). Raises Rejected where the catalogue would."""
        if self.type is None:
            return None
        properties = TYPES[self.type](dict(self.properties or {}), shop)
        _check(self.type, properties)
        made = new_id()
        return Event(made, _SOURCE, str(made), self.type, at, at, {}, properties, name=self.name)

    def trigger(
        self, customer_id: UUID, random_key: UUID, event: Event | None, at: datetime, rules: Sequence[LiveRule]
    ) -> Trigger:
        """Of one customer. A schedule asks all rules that have one; a missed goal those that wait for such an event."""
        asked = self._asked(rules)
        kind = {"schedule": SCHEDULE, "missed": MISSED}.get(self.kind)
        if kind is None:
            kind = self.type if self.kind == "event" else f"{(self.group or '').partition('.')[0]}.{self.kind}"
        assert kind is not None
        return Trigger(customer_id, random_key, kind, event, at, rule_ids=asked, group=self.group)

    def _asked(self, rules: Sequence[LiveRule]) -> frozenset[UUID]:
        if self.kind == "schedule":
            found = [live.rule_id for live in rules if live.rule.when.schedule is not None]
        elif self.kind == "missed":
            found = [
                live.rule_id
                for live in rules
                if live.rule.when.missed is not None and self.type in live.rule.when.missed.events
            ]
        else:
            return frozenset()
        return frozenset(found or [_NO_RULE])  # an empty set would say: ask by the event's type


_NO_RULE = UUID(int=0)


def read(
    kind: str, *, type_: str | None = None, name: str | None = None, properties: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> Trial:  # fmt: skip
    """Raises Rejected, with what is wrong in `where`."""
    if kind not in KINDS:
        raise Rejected(f"a trigger is one of {', '.join(KINDS)}", where="trigger.kind")
    needs_event, needs_group = kind in ("event", "missed"), kind in ("entered", "left")
    if needs_event and type_ not in TYPES:
        said = "`type` is missing" if type_ is None else f"there is no event type {type_[:60]!r}"
        raise Rejected(f"{said}; there are {', '.join(TYPES)}", where="trigger.type")
    if needs_group and (group is None or group.partition(".")[0] not in ("segment", "cluster") or "." not in group):
        raise Rejected("`group` is what is entered or left: segment.<key> or cluster.<label>", where="trigger.group")
    unused = [("type", type_, needs_event), ("name", name, needs_event), ("properties", properties, needs_event),
              ("group", group, needs_group)]  # fmt: skip
    for part, value, is_wanted in unused:
        if value and not is_wanted:
            raise Rejected(f"a trigger of kind {kind} has no `{part}`", where=f"trigger.{part}")
    return Trial(kind, type_, name, properties, group)


def _check(type_: str, properties: Mapping[str, Any]) -> None:
    try:
        storable.check(properties)
    except Rejected as error:
        raise Rejected(error.detail, code=error.code, where="trigger.properties") from None
    if type_.startswith("email.") and not isinstance(properties.get("address", ""), str):
        raise Rejected("properties.address is a string", where="trigger.properties.address")
    if type_ == "customer.identified" and not isinstance(properties.get("traits") or {}, dict):
        raise Rejected("properties.traits is an object", where="trigger.properties.traits")
