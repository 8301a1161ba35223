"""An arm as a customer would live through it: each step with its time, its price, its text in every language.

A wait or a branch shows both ways: as if what is waited for came at once, and as if it never came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from operation_agent.actions import approving
from operation_agent.actions.rendering import DEFAULT_EXPIRY, Job, Person, Sender, render
from operation_agent.actions.segments import Manner, product_of
from operation_agent.actions.unsubscribe import PATH, Links
from operation_agent.kit.errors import Rejected
from rules import duration, offer, program
from rules.program import Arm, Branch, Due, Placed, Wait

SAMPLE_CODE = "SAMPLE2345"
MOST_STOPS = 60
"""Waits and branches of one arm that are followed; each doubles what is shown."""
MOST_LETTERS = 2_000_000
"""Of rendered texts in one answer."""


@dataclass(frozen=True, slots=True)
class SampleLinks(Links):
    """Links that lead nowhere: nobody leaves by them."""

    def unsubscribe(self, shop_id: UUID, action_id: UUID) -> str:
        return f"{self.base}{PATH}sample"


@dataclass(slots=True)
class Paper:
    """How many letters may still be rendered."""

    left: int = MOST_LETTERS


@dataclass(slots=True)
class Viewer:
    """Of one customer. `zone`: the customer's, else the shop's; `costs`: of the arm's actions by number, at most."""

    sender: Sender
    manner: Manner
    person: Person
    zone: str
    properties: Mapping[str, Any]
    costs: Sequence[int]
    paper: Paper
    _stops: int = field(default=0, init=False)

    def steps(self, arm: Arm, at: datetime) -> list[dict[str, Any]]:
        """Everything from the arm's beginning at `at` (shop time) on."""
        return self._from(arm, program.START, at, None)

    def _from(self, arm: Arm, path: str, at: datetime, coupon: int | None) -> list[dict[str, Any]]:
        walked = program.walk(arm, path, at, self.zone, self.properties, coupon=coupon)
        shown = [self._action(arm, due) for due in walked.due]
        parked = walked.parked
        if parked is None:
            return shown
        self._stops += 1
        step = program.at_path(arm, parked.path)
        assert isinstance(step, Wait | Branch)
        stop: dict[str, Any] = {"kind": parked.kind, "key": step.key or parked.path, "at": parked.at}
        if isinstance(step, Wait):
            stop |= {"event": list(step.events), "deadline": parked.deadline}
        else:
            stop["if"] = step.condition.to_dict()
        if self._stops > MOST_STOPS:
            return [*shown, {**stop, "cut": True}]
        then, otherwise = (program.resume(arm, parked.path, outcome) for outcome in (True, False))
        stop["then"] = self._from(arm, then, parked.at, walked.coupon)
        stop["else"] = self._from(arm, otherwise, parked.deadline or parked.at, walked.coupon)
        return [*shown, stop]

    def _action(self, arm: Arm, due: Due) -> dict[str, Any]:
        placed, step = due.placed, due.placed.step
        cost = self.costs[placed.number] if placed.number < len(self.costs) else 0
        needed = approving.need(self.manner.rulings, step, reserve_minor=cost)
        shown: dict[str, Any] = {
            "kind": "action", "key": step.key or placed.path, "number": placed.number, "action": step.action,
            "topic": step.topic, "due_at": due.due_at, "goes_at": self.manner.due_at(due, self.zone),
            "cost_minor": cost, "waits_for": list(needed.why) if needed is not None else [],
        }  # fmt: skip
        return shown | self._rendered(arm, due)

    def _rendered(self, arm: Arm, due: Due) -> dict[str, Any]:
        placed, step = due.placed, due.placed.step
        if step.action == "coupon":
            return {"coupon": self._coupon(placed, due.due_at)}
        texts = step.parameters.get("body")
        if not isinstance(texts, Mapping):
            return {}
        before = program.actions(arm)[due.after_coupon] if due.after_coupon is not None else None
        coupon = self._coupon(before, due.due_at) if before is not None else {}
        product = product_of(self.properties)
        parameters = {**step.parameters, **({"product": {"id": product}} if product is not None else {})}
        rendered = {name: self._text(step.action, {**parameters}, name, due.due_at, coupon) for name in sorted(texts)}
        return {"language": language_of(self.person.locale, texts, self.sender.language), "rendered": rendered}

    def _text(
        self, action: str, parameters: Mapping[str, Any], language: str, at: datetime, coupon: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """None when the answer is full."""
        if self.paper.left <= 0:
            return None
        person = self.person
        reader = Person(person.id, person.external_id, person.email, person.phone, person.first_name,
                        person.last_name, language, person.time_zone)  # fmt: skip
        job = Job(UUID(int=0), action, "sample", parameters, reader, at, coupon)
        try:
            made = render(self.sender, job)
        except Rejected as error:
            return {"error": error.detail}
        self.paper.left -= len(made["subject"]) + len(made["html"])
        return {"subject": made["subject"], "html": made["html"]}

    def _coupon(self, placed: Placed, at: datetime) -> dict[str, Any]:
        lasts = duration.parse(placed.step.parameters.get("expires_in") or DEFAULT_EXPIRY)
        given = placed.step.parameters
        percent = {"percent": float(given["percent"])} if "percent" in given else {}
        return {
            "code": SAMPLE_CODE, **percent, "terms": offer.terms_of(given), "expires_at": (at + lasts).isoformat()
        }  # fmt: skip


def language_of(locale: str | None, texts: Mapping[str, Any], fallback: str) -> str:
    """The language in which somebody of this locale is written to, as rules.text.in_language chooses it."""
    asked = (locale or "").replace("_", "-").split("-")[0].lower()
    for one in (asked, fallback):
        if texts.get(one):
            return one
    return next(iter(texts))
