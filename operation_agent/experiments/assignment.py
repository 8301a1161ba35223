"""Who is treated and who is held out, and which arm: reproducible draws over stable keys, with their propensities.

Pure. A draw is `kit.ids.uniform(shop seed, …)`, so the same customer gets the same answer in whatever batch, process
or year it is asked, and an assignment can be recomputed from its receipt. A customer of the shop-wide holdout is held
out of every strategy; of the others, each strategy holds out its own share, independently of other strategies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from operation_agent.kit.ids import uniform

GLOBAL_HOLDOUT = 0.05
"""Of a shop that sets no `global_holdout`: what is left alone by everything, to measure the programme as a whole."""


@dataclass(frozen=True, slots=True)
class Side:
    """`propensity` is the probability of the side the customer is on: held out, or treated. The draws are in [0, 1);
    a customer is held out when one is below its share."""

    held_out: bool
    propensity: float
    global_draw: float
    strategy_draw: float


def global_salt(random_key: str) -> tuple[str, ...]:
    return ("global", "holdout", random_key)


def holdout_salt(strategy_key: str, random_key: str) -> tuple[str, ...]:
    return (strategy_key, "holdout", random_key)


def arm_salt(strategy_key: str, rule_key: str, random_key: str) -> tuple[str, ...]:
    # without the trigger: a customer who comes again gets the same arm, and so never two different prices
    return (strategy_key, "arm", rule_key, random_key)


def held_out_share(holdout: float, global_holdout: float) -> float:
    """The probability of being held out of a strategy, by itself or by the shop: g + (1 - g)·h."""
    return global_holdout + (1 - global_holdout) * holdout


def side(seed: str, strategy_key: str, random_key: str, *, holdout: float, global_holdout: float) -> Side:
    """Draw the side of one customer in one strategy. Shares are in [0, 1)."""
    everywhere = uniform(seed, *global_salt(random_key))
    here = uniform(seed, *holdout_salt(strategy_key, random_key))
    held_out = everywhere < global_holdout or here < holdout
    share = held_out_share(holdout, global_holdout)
    return Side(held_out, share if held_out else 1 - share, everywhere, here)


def shares(weights: Sequence[float]) -> list[float]:
    """Weights as probabilities. Raises ValueError when they add up to nothing."""
    total = sum(weights)
    if total <= 0:
        raise ValueError("the weights add up to nothing")
    return [weight / total for weight in weights]


def pick(probabilities: Sequence[float], draw: float) -> int:
    """The index whose stretch of [0, 1) contains `draw`. One of probability 0 is never picked."""
    passed, last = 0.0, 0
    for index, probability in enumerate(probabilities):
        if probability > 0:
            passed, last = passed + probability, index
            if draw < passed:
                return index
    return last  # what rounding left of the last stretch


def arm(
    seed: str, strategy_key: str, rule_key: str, random_key: str, probabilities: Sequence[float]
) -> tuple[int, float]:
    """The arm of one customer under a rule, and the draw that picked it."""
    draw = uniform(seed, *arm_salt(strategy_key, rule_key, random_key))
    return pick(probabilities, draw), draw
