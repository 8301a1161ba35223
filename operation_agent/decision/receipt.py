"""Receipts: everything that led to a decision, as JSON that can be read, explained and recomputed.

Form 1 (`v`):

    v            of this form
    rule         {key, version}            strategy  its key
    cause        {trigger, key, at, event_id}
    seen         the leaves of the condition with the value seen: {path, field, op, value, seen, holds, against?}
    arms         what could be done: {key, share, score}   others  rules of other strategies that matched as well
    score        expected value, minor units, under the policy; estimator: who said so
    guardrails   {name: true, or what stopped it}
    side         {held_out, propensity, kept} with both draws, their shares and salts where it was drawn now
    arm_draw     {draw, salt}
    arm, propensity, verdict

A draw is kit.ids.uniform(shop.seed, *salt); the seed itself is in the shop, not in the receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operation_agent.experiments import assignment
from operation_agent.experiments.assignment import Side
from operation_agent.strategies.live import LiveRule
from rules.evaluate import LeafResult

from .facts import Trigger
from .guardrails import Verdict
from .history import Kept

FORM = 1
VERDICTS = (
    "act", "holdout", "no_consent", "suppressed", "capped", "over_budget", "already_enrolled", "no_address", "nothing",
)  # fmt: skip
"""`nothing`: the arm that was drawn does nothing, or another rule of the strategy took the trigger."""


def cause(live: LiveRule, trigger: Trigger) -> dict[str, Any]:
    found: dict[str, Any] = {"trigger": trigger.type, "key": trigger.key, "at": trigger.at.isoformat()}
    if trigger.event is not None:
        found["event_id"] = str(trigger.event.id)
    return {
        "v": FORM,
        "strategy": live.strategy.key,
        "rule": {"key": live.key, "version": live.version},
        "cause": found,
    }


def seen(leaves: Sequence[LeafResult]) -> list[dict[str, Any]]:
    return [leaf.to_dict() for leaf in leaves]


def guardrails(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {verdict.name: True if verdict.passed else dict(verdict.detail) for verdict in verdicts}


def draws(
    live: LiveRule, trigger: Trigger, side: Side | Kept, global_holdout: float, arm_draw: float
) -> dict[str, Any]:
    """The two draws: `side` and `arm_draw`."""
    random_key, strategy = str(trigger.random_key), live.strategy
    found: dict[str, Any] = {
        "held_out": side.held_out,
        "propensity": side.propensity,
        "kept": isinstance(side, Kept),
    }
    if isinstance(side, Side):
        first = {"share": global_holdout, "draw": side.global_draw, "salt": assignment.global_salt(random_key)}
        salt = assignment.holdout_salt(strategy.key, random_key)
        found["draws"] = [first, {"share": strategy.holdout, "draw": side.strategy_draw, "salt": salt}]
    salt = assignment.arm_salt(strategy.key, live.rule.key, random_key)
    return {"side": found, "arm_draw": {"draw": arm_draw, "salt": salt}}
