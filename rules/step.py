"""Steps: what an arm does, one after the other. Each action type reads its own parameters.

A step's `delay` counts from the step before it (from the decision, for the first).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from . import duration, text
from .tree import Node

TOPICS = ("marketing", "transactional")


@dataclass(frozen=True, slots=True)
class Step:
    """`parameters` are the action type's own, in the form they are written in (a duration as P7D)."""

    action: str
    channel: str
    topic: str
    delay: timedelta
    parameters: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        delay = {"delay": duration.write(self.delay)} if self.delay else {}
        return {"action": self.action, "topic": self.topic, **delay, **self.parameters}

    @property
    def is_message(self) -> bool:
        """Whether it reaches into somebody's day: needs consent, counts against caps."""
        return ACTIONS[self.action].is_message


@dataclass(frozen=True, slots=True)
class ActionForm:
    """How an action type is written in a rule."""

    channel: str
    is_message: bool
    keys: tuple[str, ...]
    read: Callable[[Node, frozenset[str]], dict[str, Any]]


def _email(node: Node, provided: frozenset[str]) -> dict[str, Any]:
    subject, body = node.need("subject"), node.need("body")
    parameters = {"subject": subject.languages(longest=500), "body": body.languages(longest=100_000)}
    for part, translations in ((subject, parameters["subject"]), (body, parameters["body"])):
        for language in translations:
            _check_text(part.need(language), provided)
    if node.value.get("topic", TOPICS[0]) == "marketing":
        for language in parameters["body"]:
            here = body.need(language)
            if "unsubscribe_url" not in text.variables(here):
                raise here.fail("a marketing e-mail needs a way out: use {{ unsubscribe_url }}")
    return parameters


def _check_text(node: Node, provided: frozenset[str]) -> None:
    for variable in sorted(text.variables(node)):
        if variable.startswith("coupon.") and "coupon" not in provided:
            raise node.fail(f"uses {variable}, but no coupon step comes before it in this arm")


def _coupon(node: Node, provided: frozenset[str]) -> dict[str, Any]:
    expires = node.get("expires_in")
    return {
        "percent": node.need("percent").number(low=0.01, high=100),
        "expires_in": duration.write(expires.duration()) if expires else "P14D",
    }


ACTIONS: dict[str, ActionForm] = {
    "email": ActionForm("email", is_message=True, keys=("subject", "body"), read=_email),
    "coupon": ActionForm("coupon", is_message=False, keys=("percent", "expires_in"), read=_coupon),
}


def parse(node: Node, provided: frozenset[str]) -> Step:
    """Read a step. `provided` are the actions before it in its arm. Raises RuleError."""
    node.mapping()
    action = node.need("action").choice(ACTIONS)
    form = ACTIONS[action]
    node.mapping("action", "topic", "delay", *form.keys)
    topic, delay = node.get("topic"), node.get("delay")
    return Step(
        action=action,
        channel=form.channel,
        topic=topic.choice(TOPICS) if topic else TOPICS[0],
        delay=delay.duration() if delay else timedelta(0),
        parameters=form.read(node, provided),
    )


def text_variables(step: Step) -> set[str]:
    """Every variable that the step's texts use."""
    return {
        variable
        for value in step.parameters.values()
        if isinstance(value, Mapping)
        for written in value.values()
        for variable in text.variables(Node(written))
    }
