"""Receipts: everything that led to a decision, as JSON that can be read, explained and recomputed.

Form 2 (`v`) is kept short; what a rule version says is read there again (`expanded` puts it back):

    v, strategy, rule   of this form; the strategy's key; {key, version}
    policy, estimator   how the arm is chosen; who said what the arms are worth
    holdout             the shares held out: [of the shop, of the strategy]
    cause               {trigger, key, at, event_id?, campaign_id?}
    who                 the customer's random key, of which every draw is made
    cluster             the label of the cluster it was in, if there was a clustering
    seen                the values that the condition looked at, in the order of `fields`; null: not known
    order               the order expected of this customer
    values, score       what each arm is worth (null: unknown), and the rule under its policy
    given               what the guardrails were given, by name (decision.guardrails); any other had nothing to judge
    stopped             what stopped it: {guardrail: why}
    side                [held_out, propensity, kept]; kept: assigned earlier, not drawn now
    draws               [shop's holdout, strategy's holdout, arm], in [0, 1); the first two null where the side was kept
    arm, propensity, verdict
    alternatives        the other rules of the strategy that hold: {rule, version, priority, score, given?, stopped?};
                        one without `stopped` came after the chosen one
    others              rules of other strategies that hold as well
    may_skip            {arm: numbers of later messages that caps may hold back when they are due}
    approval            {why: [...], approvers, expires_in}: people must say yes before anything goes out

A draw is kit.ids.uniform(shop.seed, *salt); the seed itself is in the shop, not in the receipt. Form 1, of the release
before, says all of this in full and without `given`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from operation_agent.experiments import assignment
from operation_agent.strategies.live import LiveRule
from rules.condition import Condition, Leaf, leaves, since_column
from rules.evaluate import AT, compile
from rules.rule import Rule

from .facts import Trigger
from .guardrails import STOPS_AS

FORM = 2
VERDICTS = ("act", "holdout", *dict.fromkeys(STOPS_AS.values()))
"""`nothing`: the arm that was drawn does nothing."""


def head(live: LiveRule, estimator: str, holdout: tuple[float, float]) -> dict[str, Any]:
    """What all receipts of a rule in one call share."""
    return {
        "v": FORM,
        "strategy": live.strategy.key,
        "rule": {"key": live.key, "version": live.version},
        "policy": live.strategy.policy,
        "estimator": estimator,
        "holdout": holdout,
    }


def cause(trigger: Trigger, campaign_id: UUID | None) -> dict[str, Any]:
    """Why the customer was looked at."""
    found: dict[str, Any] = {"trigger": trigger.type, "key": trigger.key, "at": trigger.at.isoformat()}
    if trigger.event is not None:
        found["event_id"] = str(trigger.event.id)
    return found if campaign_id is None else {**found, "campaign_id": str(campaign_id)}


def alternative(live: LiveRule, score: float) -> dict[str, Any]:
    """Another rule of the strategy that holds for the same trigger."""
    return {"rule": live.key, "version": live.version, "priority": live.rule.priority, "score": score}


def fields(condition: Condition) -> list[tuple[str, str]]:
    """The columns that a condition looks at, with their kinds, in reading order: the order of `seen`, for ever."""
    found: dict[str, str] = {}
    for leaf in leaves(condition):
        for name in leaf.columns:
            found.setdefault(name, _kind(leaf, name))
    return list(found.items())


def _kind(leaf: Leaf, column: str) -> str:
    if column in leaf.references:
        return "number"
    return "time" if leaf.held is not None and column == since_column(leaf.field) else leaf.kind


def columns(condition: Condition, seen: Sequence[Any], at: float) -> dict[str, Any]:
    """The columns of one row that a receipt saw, for the evaluator. `at` in seconds since 1970."""
    found: dict[str, Any] = {AT: np.array([at])}
    for (name, kind), value in zip(fields(condition), seen, strict=False):
        if kind in ("label", "list", "any"):
            column: Any = np.empty(1, object)
            column[0] = tuple(value) if kind == "list" and isinstance(value, list) else value
        else:
            column = np.array([np.nan if value is None else float(value)])
        found[name] = column
    return found


def told(condition: Condition, seen: Sequence[Any], at: float) -> list[dict[str, Any]]:
    """Every comparison of a condition with the value seen and how it came out: {path, field, op, value?, seen, holds,
    against?}; holds null: unknown."""
    evaluation = compile(condition).evaluate(columns(condition, seen, at), 1)
    return [leaf.to_dict() for leaf in evaluation.explain(0)]


def shares_of(policy: str, rule: Rule) -> tuple[float, ...]:
    """The probability of each arm: `first` takes the first one, otherwise one is drawn by weight."""
    weights = [arm.weight for arm in rule.arms]
    return (1.0,) + (0.0,) * (len(weights) - 1) if policy == "first" else tuple(assignment.shares(weights))


def expanded(receipt: Mapping[str, Any], rule: Rule | None) -> dict[str, Any]:
    """A receipt with all that its rule version says, as form 1 had it: `seen` as `told`, `arms`, every guardrail's
    verdict (true: it lets pass), the draws with their shares and salts. Without its rule, as far as that goes."""
    if receipt["v"] == 1:
        return dict(receipt)
    found = {**receipt, "guardrails": {name: receipt.get("stopped", {}).get(name, True) for name in STOPS_AS}}
    found.setdefault("others", [])
    found.setdefault("alternatives", [])
    if rule is not None:
        found["seen"] = told(rule.condition, receipt["seen"], seconds(receipt))
        shares = shares_of(receipt["policy"], rule)
        found["arms"] = [
            {"key": arm.key, "share": share, "score": value}
            for arm, share, value in zip(rule.arms, shares, receipt["values"], strict=True)
        ]
    if "side" in receipt:
        found |= _drawn(receipt)
    return found


def seconds(receipt: Mapping[str, Any]) -> float:
    """The moment of the decision, in seconds since 1970 (shop time)."""
    return datetime.fromisoformat(receipt["cause"]["at"]).timestamp()


def salts(receipt: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Of the three draws: the shop's holdout, the strategy's, the arm."""
    strategy, who = receipt["strategy"], receipt["who"]
    rule = receipt["rule"]["key"].removeprefix(f"{strategy}/")
    return (
        assignment.global_salt(who),
        assignment.holdout_salt(strategy, who),
        assignment.arm_salt(strategy, rule, who),
    )


def _drawn(receipt: Mapping[str, Any]) -> dict[str, Any]:
    held_out, propensity, kept = receipt["side"]
    side: dict[str, Any] = {"held_out": held_out, "propensity": propensity, "kept": kept}
    *of_side, of_arm = zip(receipt["draws"], salts(receipt), strict=True)
    if not kept:
        side["draws"] = [
            {"share": share, "draw": draw, "salt": list(salt)}
            for share, (draw, salt) in zip(receipt["holdout"], of_side, strict=True)
        ]
    return {"side": side, "arm_draw": {"draw": of_arm[0], "salt": list(of_arm[1])}}
