"""Strategies: a goal, the rules that serve it, and the limits within which they may.

Customers held out are chosen by default (HOLDOUT): without them nobody can say what a strategy earned.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from . import duration
from . import rule as rule_form
from .errors import RuleError
from .fields import Vocabulary
from .rule import Rule
from .step import ACTIONS
from .tree import Node, unique

HOLDOUT = 0.2
ATTRIBUTION = timedelta(days=7)

PolicyKind = Literal["first", "split"]
POLICIES: tuple[PolicyKind, ...] = ("first", "split")
GOALS = ("conversion", "retention", "repurchase", "win_back")


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `count` messages of a channel to one customer within any `window` (rolling, of shop time)."""

    channel: str
    count: int
    window: timedelta

    def to_dict(self) -> dict[str, Any]:
        return {"channel": self.channel, "count": self.count, "window": duration.write(self.window)}


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit` in units of `currency`; without one, of the shop's."""

    limit: Decimal
    currency: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"limit": str(self.limit), **({"currency": self.currency} if self.currency else {})}


@dataclass(frozen=True, slots=True)
class Strategy:
    """`policy`: `first` takes a rule's first arm, `split` draws one by weight. `attribution`: how long after an action
    an order still counts as following it."""

    key: str
    name: dict[str, str]
    goal: str
    why: dict[str, str]
    rules: tuple[Rule, ...]
    holdout: float = HOLDOUT
    caps: tuple[Cap, ...] = ()
    budget: Budget | None = None
    policy: PolicyKind = "split"
    attribution: timedelta = ATTRIBUTION

    def to_dict(self) -> dict[str, Any]:
        """The canonical form: reading it gives this strategy again."""
        budget = {"budget": self.budget.to_dict()} if self.budget else {}
        return {
            "key": self.key, "name": self.name, "goal": self.goal, "why": self.why, "holdout": self.holdout,
            "caps": [cap.to_dict() for cap in self.caps], **budget, "policy": {"kind": self.policy},
            "attribution": {"window": duration.write(self.attribution)},
            "rules": [rule.to_dict() for rule in self.rules],
        }  # fmt: skip


def parse(raw: Any, vocabulary: Vocabulary) -> Strategy:
    """Read a strategy from plain dicts and lists. Raises RuleError, naming the path at fault."""
    node = Node(raw)
    node.mapping("key", "name", "goal", "why", "holdout", "caps", "budget", "policy", "attribution", "rules")
    holdout, caps, budget, policy = (node.get(key) for key in ("holdout", "caps", "budget", "policy"))
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
        caps=_caps(caps) if caps is not None and caps.value != [] else (),
        budget=_budget(budget) if budget else None,
        policy=_policy(policy) if policy else "split",
        attribution=_attribution(node.get("attribution")),
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


def _caps(node: Node) -> tuple[Cap, ...]:
    caps = []
    for one in node.items("caps"):
        one.mapping("channel", "count", "window")
        window = one.need("window").duration()
        if not window:
            raise one.need("window").fail("a window of no length holds nothing")
        channels = sorted({form.channel for form in ACTIONS.values()})
        caps.append(Cap(one.need("channel").choice(channels), one.need("count").whole(low=1), window))
    return tuple(caps)


def _budget(node: Node) -> Budget:
    node.mapping("limit", "currency")
    limit, currency = node.need("limit"), node.get("currency")
    if isinstance(limit.value, bool) or not isinstance(limit.value, int | float | str):
        raise limit.fail("an amount is wanted, such as 500 or '499.90'")
    try:
        amount = Decimal(str(limit.value))
    except InvalidOperation:
        raise limit.fail(f"{str(limit.value)[:40]!r} is not an amount") from None
    if not amount.is_finite() or not 0 <= amount <= 10**12:
        raise limit.fail("an amount between 0 and a million million is wanted")
    code = currency.text(longest=3) if currency else None
    if currency is not None and (code is None or len(code) != 3 or not code.isascii() or not code.isupper()):
        raise currency.fail(f"{currency.value!r} is not an ISO 4217 code such as USD")
    return Budget(amount, code)


def _policy(node: Node) -> PolicyKind:
    node.mapping("kind")
    return node.need("kind").choice(POLICIES)  # type: ignore[return-value]


def _attribution(node: Node | None) -> timedelta:
    if node is None:
        return ATTRIBUTION
    node.mapping("window")
    return node.need("window").duration()
