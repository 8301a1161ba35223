"""Strategies: a goal, the rules that serve it, and the limits within which they may.

Customers held out are chosen by default (HOLDOUT): without them nobody can say what a strategy earned.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from . import duration, limits
from . import rule as rule_form
from .errors import RuleError
from .fields import Vocabulary
from .limits import UNLIMITED, Limits
from .limits import Budget as Budget
from .limits import Cap as Cap
from .rule import Rule
from .tree import Node, unique

HOLDOUT = 0.2
ATTRIBUTION = timedelta(days=7)

PolicyKind = Literal["first", "split"]
POLICIES: tuple[PolicyKind, ...] = ("first", "split")
GOALS = ("conversion", "retention", "repurchase", "win_back")


@dataclass(frozen=True, slots=True)
class Strategy:
    """`policy`: `first` takes a rule's first arm, `split` draws one by weight. `attribution`: how long after an action
    an order still counts as following it. `effect`: what it is expected to change, in words."""

    key: str
    name: dict[str, str]
    goal: str
    why: dict[str, str]
    rules: tuple[Rule, ...]
    holdout: float = HOLDOUT
    limits: Limits = UNLIMITED
    policy: PolicyKind = "split"
    attribution: timedelta = ATTRIBUTION
    effect: dict[str, str] = field(default_factory=dict)

    @property
    def caps(self) -> tuple[Cap, ...]:
        return self.limits.caps

    @property
    def budget(self) -> Budget | None:
        return self.limits.budget

    def limited(self, **changes: Any) -> Strategy:
        """The same within other limits: `limited(budget=Budget(Decimal(500)))`."""
        return replace(self, limits=replace(self.limits, **changes))

    def to_dict(self) -> dict[str, Any]:
        """The canonical form: reading it gives this strategy again."""
        effect = {"effect": self.effect} if self.effect else {}
        return {
            "key": self.key, "name": self.name, "goal": self.goal, "why": self.why, **effect, "holdout": self.holdout,
            **self.limits.to_dict(), "policy": {"kind": self.policy},
            "attribution": {"window": duration.write(self.attribution)},
            "rules": [rule.to_dict() for rule in self.rules],
        }  # fmt: skip


def parse(raw: Any, vocabulary: Vocabulary) -> Strategy:
    """Read a strategy from plain dicts and lists. Raises RuleError, naming the path at fault."""
    node = Node(raw)
    node.mapping("key", "name", "goal", "why", "effect", "holdout", *limits.KEYS, "policy", "attribution", "rules")
    holdout, policy, effect = (node.get(key) for key in ("holdout", "policy", "effect"))
    rules = node.need("rules").items("rules")
    read = [rule_form.parse(one, vocabulary) for one in rules]
    unique(((one.need("key"), rule.key) for one, rule in zip(rules, read, strict=True)), "rule")
    return Strategy(
        key=node.need("key").key(),
        name=node.need("name").languages(longest=200),
        goal=node.need("goal").choice(GOALS),
        why=node.need("why").languages(longest=2_000),
        rules=tuple(read),
        holdout=_holdout(holdout) if holdout else HOLDOUT,
        limits=limits.parse_limits(node),
        policy=_policy(policy) if policy else "split",
        attribution=_attribution(node.get("attribution")),
        effect=effect.languages(longest=2_000) if effect else {},
    )


def parse_yaml(source: str, vocabulary: Vocabulary) -> Strategy:
    """As `parse`, from YAML (or JSON, which is YAML). Raises RuleError, with the line where it is not YAML."""
    import yaml

    try:
        raw = yaml.safe_load(source)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise RuleError(f"line {mark.line + 1}" if mark else "", f"is not YAML: {error}") from None
    return parse(raw, vocabulary)


def _holdout(node: Node) -> float:
    share = float(node.number(low=0, high=1))
    if share >= 1:
        raise node.fail("a holdout of everybody leaves nobody to treat")
    return share


def _policy(node: Node) -> PolicyKind:
    node.mapping("kind")
    return node.need("kind").choice(POLICIES)  # type: ignore[return-value]


def _attribution(node: Node | None) -> timedelta:
    if node is None:
        return ATTRIBUTION
    node.mapping("window")
    return node.need("window").duration()
