"""Steps: what an arm does, one after the other. Each action type reads its own parameters.

A step's `delay` counts from the step before it (from the decision, for the first).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from . import duration, offer, text
from .tree import Node, unique

TOPICS = ("marketing", "transactional")


@dataclass(frozen=True, slots=True)
class Step:
    """`parameters` are the action type's own, in the form they are written in (a duration as P7D). `tags` name what a
    message is about, for caps that count by tag; `key` as in `program`."""

    action: str
    channel: str
    topic: str
    delay: timedelta
    parameters: Mapping[str, Any]
    key: str = ""
    tags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        delay = {"delay": duration.write(self.delay)} if self.delay else {}
        # a key that starts with a digit is the path, and follows from where the step stands
        key = {"key": self.key} if self.key and not self.key[0].isdigit() else {}
        tags = {"tags": list(self.tags)} if self.tags else {}
        return {"action": self.action, "topic": self.topic, **delay, **key, **tags, **self.parameters}

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
        if not variable.startswith("coupon."):
            continue
        if "coupon" not in provided:
            raise node.fail(f"uses {variable}, but no coupon step comes before it in this arm")
        if variable in _OF_ONE_KIND and variable not in provided:
            raise node.fail(f"uses {variable}, which the coupon before it does not have; use coupon.description")


def _coupon(node: Node, provided: frozenset[str]) -> dict[str, Any]:
    return offer.read(node)


_OF_ONE_KIND = frozenset({"coupon.percent", "coupon.amount"})
ANY_COUPON = frozenset({"coupon"}) | _OF_ONE_KIND
"""What a coupon step provides for the texts after it, whatever it gives."""


def provides(step: Step, provided: frozenset[str]) -> frozenset[str]:
    """What is there for the texts after a step; of several coupons the latest counts."""
    if step.action != "coupon":
        return provided | {step.action}
    return (provided - _OF_ONE_KIND) | {"coupon", f"coupon.{offer.kind_of(step.parameters)}"}


ACTIONS: dict[str, ActionForm] = {
    "email": ActionForm("email", is_message=True, keys=("subject", "body"), read=_email),
    "coupon": ActionForm("coupon", is_message=False, keys=offer.KEYS, read=_coupon),
}


def parse(node: Node, provided: frozenset[str], *, key: str = "") -> Step:
    """Read an action step. `provided` are the actions that every way to it has passed. Raises RuleError."""
    node.mapping()
    action = node.need("action").choice(ACTIONS)
    form = ACTIONS[action]
    node.mapping("action", "topic", "delay", "key", "tags", *form.keys)
    topic, delay, tags = node.get("topic"), node.get("delay"), node.get("tags")
    return Step(
        action=action,
        channel=form.channel,
        topic=topic.choice(TOPICS) if topic else TOPICS[0],
        delay=delay.duration() if delay else timedelta(0),
        parameters=form.read(node, provided),
        key=key,
        tags=read_tags(tags) if tags is not None else (),
    )


def read_tags(node: Node) -> tuple[str, ...]:
    """A list of keys without repeats. Raises RuleError."""
    if node.value == []:
        return ()
    listed = node.items("tags")
    names = [one.key() for one in listed]
    unique(zip(listed, names, strict=True), "tag")
    return tuple(names)


def text_variables(step: Step) -> set[str]:
    """Every variable that the step's texts use; only a message has texts."""
    if not step.is_message:
        return set()
    return {
        variable
        for value in step.parameters.values()
        if isinstance(value, Mapping)
        for written in value.values()
        for variable in text.variables(Node(written))
    }
