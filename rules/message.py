"""Messages that a rule may name instead of writing out: `rules/messages/*.yaml`, subject and body in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import step
from .tree import Node


@dataclass(frozen=True, slots=True)
class Message:
    """An e-mail by name. `aliases`: other names by which it is found."""

    key: str
    name: dict[str, str]
    subject: dict[str, str]
    body: dict[str, str]
    aliases: tuple[str, ...] = ()
    topic: str = "marketing"

    @property
    def step(self) -> dict[str, Any]:
        """As an arm's step is written."""
        return {"action": "email", "topic": self.topic, "subject": self.subject, "body": self.body}

    @property
    def needs_coupon(self) -> bool:
        """Whether a coupon step must come before it."""
        read = step.parse(Node(self.step), step.ANY_COUPON)
        return any(name.startswith("coupon.") for name in step.text_variables(read))


Messages = Mapping[str, Message]


def parse(key: str, node: Node) -> Message:
    """Read a message. Raises RuleError, naming the path at fault."""
    node.mapping("name", "aliases", "topic", "subject", "body")
    topic, aliases = node.get("topic"), node.get("aliases")
    found = Message(
        key=Node(key, "key").key(),
        name=node.need("name").languages(longest=200),
        subject=node.need("subject").languages(longest=500),
        body=node.need("body").languages(longest=100_000),
        aliases=tuple(one.text(longest=60) for one in aliases.items("names")) if aliases else (),
        topic=topic.choice(step.TOPICS) if topic else step.TOPICS[0],
    )
    step.parse(Node(found.step, node.path), step.ANY_COUPON)
    return found


def find(node: Node, messages: Messages) -> Message:
    """The message that `node` names, by key or alias. Raises RuleError, naming what there is."""
    name = node.text(longest=120).strip()
    wanted = name.lower().replace("-", "_").replace(" ", "_")
    for message in messages.values():
        if wanted == message.key or name in message.aliases or wanted in message.aliases:
            return message
    raise node.fail(f"there is no message {name[:40]!r}; there are {', '.join(sorted(messages))}")
