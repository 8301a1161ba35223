"""A decision recomputed from its receipt, its rule's version and the shop's seed alone. Pure.

The condition is evaluated over the values seen, the guardrails judge again what they were given, the draws are made
again from the seed. What comes out the same way twice was decided as the receipt says; what does not is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from operation_agent.experiments import assignment
from operation_agent.kit.ids import uniform
from rules.evaluate import compile
from rules.rule import Rule

from . import guardrails, receipt, scoring


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the receipt says otherwise than it comes out now."""

    what: str
    recorded: Any
    recomputed: Any


@dataclass(frozen=True, slots=True)
class Replayed:
    """`verdict`, `arm` and `propensity` as they come out now."""

    verdict: str
    arm: str | None
    propensity: float | None
    differences: tuple[Difference, ...]

    @property
    def is_same(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True)
class _Outcome:
    verdict: str
    arm: str | None
    propensity: float | None
    side: list[Any] | None = None
    draws: list[float | None] | None = None


def replay(recorded: Mapping[str, Any], rule: Rule, seed: str) -> Replayed:
    """Recompute a receipt as it is kept, of either form. `rule`: the version it names; `seed`: the shop's."""
    if recorded["v"] == 1:
        found = _first_form(recorded, rule, seed)
        differences = list(_outcomes(recorded, found))
    else:
        stopped = guardrails.judge(recorded["given"])
        found = _decided(recorded, rule, seed, stopped)
        differences = [*_condition(recorded, rule), *_score(recorded, rule), *_stopped(recorded, stopped),
                       *_alternatives(recorded), *_outcomes(recorded, found)]  # fmt: skip
    return Replayed(found.verdict, found.arm, found.propensity, tuple(differences))


def _condition(recorded: Mapping[str, Any], rule: Rule) -> Iterator[Difference]:
    columns = receipt.columns(rule.condition, recorded["seen"], receipt.seconds(recorded))
    if not compile(rule.condition).evaluate(columns, 1).matched[0]:
        yield Difference("condition", True, False)


def _score(recorded: Mapping[str, Any], rule: Rule) -> Iterator[Difference]:
    values = [np.array([np.nan if one is None else one], np.float64) for one in recorded["values"]]
    score = float(scoring.under_policy(values, receipt.shares_of(recorded["policy"], rule))[0])
    if score != recorded["score"]:
        yield Difference("score", recorded["score"], score)


def _stopped(recorded: Mapping[str, Any], stopped: Mapping[str, Any]) -> Iterator[Difference]:
    before = recorded.get("stopped", {})
    for name in dict.fromkeys([*before, *stopped]):
        if before.get(name) != stopped.get(name):
            yield Difference(f"guardrails.{name}", before.get(name), stopped.get(name))


def _alternatives(recorded: Mapping[str, Any]) -> Iterator[Difference]:
    """Rules tried before must be stopped again; rules not tried must not have been better."""
    for one in recorded.get("alternatives", ()):
        if "given" in one:
            stopped = guardrails.judge(one["given"])
            if stopped != one["stopped"]:
                yield Difference(f"alternatives.{one['rule']}", one["stopped"], stopped)


def _decided(recorded: Mapping[str, Any], rule: Rule, seed: str, stopped: Mapping[str, Any]) -> _Outcome:
    verdict = guardrails.verdict_of(stopped)
    if verdict is not None:
        return _Outcome(verdict, None, None)
    if "side" not in recorded:
        return _Outcome("nothing", None, None)
    held_out, propensity, is_kept = recorded["side"]
    first, second, third = (uniform(seed, *salt) for salt in receipt.salts(recorded))
    if not is_kept:  # a side that was kept was drawn by an earlier decision
        everywhere, here = recorded["holdout"]
        held_out = first < everywhere or second < here
        share = assignment.held_out_share(here, everywhere)
        propensity = share if held_out else 1 - share
    shares = receipt.shares_of(recorded["policy"], rule)
    index = assignment.pick(shares, third)
    arm = rule.arms[index]
    return _Outcome(
        "holdout" if held_out else "act" if arm.places else "nothing",
        arm.key,
        propensity if held_out else propensity * shares[index],
        [held_out, propensity, is_kept],
        [None if is_kept else first, None if is_kept else second, third],
    )


def _first_form(recorded: Mapping[str, Any], rule: Rule, seed: str) -> _Outcome:
    """Form 1 keeps no facts of the guardrails: their verdicts stand, the draws are made again."""
    failed = [name for name, detail in recorded["guardrails"].items() if detail is not True]
    if failed:
        return _Outcome(guardrails.verdict_of(failed) or "nothing", None, None)
    side = recorded["side"]
    held_out, propensity = side["held_out"], side["propensity"]
    if not side["kept"]:
        held_out = any(uniform(seed, *draw["salt"]) < draw["share"] for draw in side["draws"])
    shares = [arm["share"] for arm in recorded["arms"]]
    index = assignment.pick(shares, uniform(seed, *recorded["arm_draw"]["salt"]))
    arm = recorded["arms"][index]["key"]
    acts = any(one.key == arm and one.places for one in rule.arms)
    verdict = "holdout" if held_out else "act" if acts else "nothing"
    return _Outcome(verdict, arm, propensity if held_out else propensity * shares[index])


def _outcomes(recorded: Mapping[str, Any], found: _Outcome) -> Iterator[Difference]:
    for what in ("side", "draws"):
        again = getattr(found, what)
        if again is not None and list(recorded[what]) != again:
            yield Difference(what, recorded[what], again)
    for what in ("arm", "propensity", "verdict"):
        if recorded[what] != getattr(found, what):
            yield Difference(what, recorded[what], getattr(found, what))
