"""Rules: when (a trigger) / if (a condition) / then (arms), and what ends it early.

key: cart-left
when: {event: [cart.added], frequency: every_time, cooldown: P14D}
if: {all: [{field: customer.open_cart, op: equals, value: true}]}
then:
  arms:
    - {key: reminder, weight: 1, steps: [{action: email, delay: PT1H, subject: …, body: …}]}
exit_on: [order.paid]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import condition as conditions
from . import reading, trigger
from .condition import Condition
from .fields import Vocabulary
from .program import Arm as Arm
from .program import Prior as Prior
from .tree import Node, unique
from .trigger import When as When


@dataclass(frozen=True, slots=True)
class Rule:
    """`enabled` False: it stays in its strategy, and decides nothing."""

    key: str
    when: When
    condition: Condition
    arms: tuple[Arm, ...]
    exit_on: tuple[str, ...] = ()
    priority: int = 0
    name: dict[str, str] = field(default_factory=dict)
    enabled: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The canonical form: reading it gives this rule again."""
        name = {"name": self.name} if self.name else {}
        off = {} if self.enabled else {"enabled": False}
        return {
            "key": self.key, **name, "when": self.when.to_dict(), "if": self.condition.to_dict(),
            "then": {"arms": [arm.to_dict() for arm in self.arms]}, "exit_on": list(self.exit_on),
            "priority": self.priority, **off,
        }  # fmt: skip


def parse(node: Node, vocabulary: Vocabulary) -> Rule:
    """Read a rule. Raises RuleError, naming the path at fault."""
    node.mapping("key", "name", "when", "if", "then", "exit_on", "priority", "enabled")
    name, priority, exit_on, enabled = (node.get(key) for key in ("name", "priority", "exit_on", "enabled"))
    when = trigger.parse(node.need("when"), vocabulary)
    rule = Rule(
        key=node.need("key").key(),
        name=name.languages(longest=200) if name else {},
        when=when,
        condition=conditions.parse(node.need("if"), vocabulary),
        arms=_arms(node.need("then"), when, vocabulary),
        exit_on=trigger.read_events(exit_on, vocabulary) if exit_on is not None and exit_on.value != [] else (),
        priority=priority.whole(low=-1000, high=1000) if priority else 0,
        enabled=enabled.flag() if enabled else True,
    )
    trigger.check_event_fields(node.need("if"), rule.condition, when, vocabulary)
    return rule


def _arms(node: Node, when: When, vocabulary: Vocabulary) -> tuple[Arm, ...]:
    node.mapping("arms")
    nodes = node.need("arms").items("arms")
    arms = [_arm(one, when, vocabulary) for one in nodes]
    unique(((one.need("key"), arm.key) for one, arm in zip(nodes, arms, strict=True)), "arm")
    if sum(arm.weight for arm in arms) <= 0:
        raise node.need("arms").fail("the weights add up to nothing")
    return tuple(arms)


def _arm(node: Node, when: When, vocabulary: Vocabulary) -> Arm:
    node.mapping("key", "weight", "steps", "prior")
    weight, prior = node.get("weight"), node.get("prior")
    return Arm(
        key=node.need("key").key(),
        weight=float(weight.number(low=0, high=1e6)) if weight else 1.0,
        steps=reading.arm_steps(node.need("steps"), when, vocabulary),
        prior=_prior(prior) if prior else None,
    )


def _prior(node: Node) -> Prior:
    node.mapping("increment", "redemption")
    increment = float(node.need("increment").number(low=-1, high=1))
    redemption = node.get("redemption")
    return Prior(increment, float(redemption.number(low=0, high=1)) if redemption else max(increment, 0.0))
