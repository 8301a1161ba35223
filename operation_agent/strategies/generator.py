"""Strategies made for a cluster from the templates: how deep the offer, at what hour, for whom, and why.

Pure. A draft is an ordinary strategy, bound to the cluster's lineage (so a refit never retargets it silently), that
an operator can read and change. What differs by cluster are conventions, meant to be argued with: whoever buys at any
price is not offered much, and where it is not known at what hour people answer, the template's own stays. What a draft
is worth is `predictor`'s to say, which of them to run `portfolio`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from rules.condition import Condition, Group, Leaf
from rules.program import AnyStep, Branch, Wait, actions
from rules.rule import Arm, Prior, Rule
from rules.step import Step
from rules.strategy import Strategy

SENSITIVE, INSENSITIVE = 0.6, 0.25
"""Mean price sensitivity of a cluster (low 0, medium 1/2, high 1): sensitive from the first on, not below the other."""
DEPTHS: dict[str, tuple[float | None, ...]] = {
    "low": (None, 5.0),
    "medium": (5.0, 10.0),
    "high": (10.0, 15.0, 20.0),
    "unknown": (None, 10.0),
}
"""Discounts in percent to choose from, by the cluster's price sensitivity; None: no coupon at all."""
WEIGHTS = {"low": 0.0, "medium": 0.5, "high": 1.0}
LEAST_ANSWERS = 100
"""Opens and clicks of a cluster from which on its hours mean something."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What is known of a cluster. `labels`: {en, zh}. `sensitivity`: customers by price sensitivity, the unknown left
    out. `reachable`: those with an address and consent for marketing by e-mail. `answers`: opens and clicks by hour of
    the shop's day (24). `order_minor`: the order to expect, minor units."""

    lineage: UUID
    label_key: str
    labels: Mapping[str, str]
    size: int
    reachable: int
    sensitivity: Mapping[str, int]
    answers: Sequence[int]
    order_minor: float

    @property
    def price_sensitivity(self) -> str:
        known = sum(self.sensitivity.values())
        if not known:
            return "unknown"
        mean = sum(WEIGHTS[level] * count for level, count in self.sensitivity.items()) / known
        return "high" if mean >= SENSITIVE else "low" if mean < INSENSITIVE else "medium"

    @property
    def best_hour(self) -> int | None:
        """The hour around which most of its opens and clicks fell (its neighbours count half); None: too few."""
        if sum(self.answers) < LEAST_ANSWERS:
            return None
        smooth = [
            self.answers[hour] + (self.answers[hour - 1] + self.answers[(hour + 1) % 24]) / 2 for hour in range(24)
        ]
        return max(range(24), key=lambda hour: (smooth[hour], -hour))


@dataclass(frozen=True, slots=True)
class Draft:
    """A strategy for a cluster. `template`: of the library; `depth`: its discount in percent, None for none; `hour`:
    of the shop's day, None where the template's stays; `reasons`: {en, zh} sentences."""

    strategy: Strategy
    template: str
    cluster: ClusterView
    depth: float | None
    hour: int | None
    reasons: Mapping[str, Sequence[str]]

    @property
    def slot(self) -> str:
        """What the draft is a variant of."""
        return f"{self.template}@{self.cluster.lineage}"


def drafts(template_key: str, template: Strategy, cluster: ClusterView) -> list[Draft]:
    """Every variant of one template for one cluster; none when nobody of it can be reached."""
    if not cluster.reachable:
        return []
    depths = DEPTHS[cluster.price_sensitivity] if _has_coupon(template) else (None,)
    made = []
    for depth in depths:
        rules = tuple(found for rule in template.rules if (found := _rule(rule, cluster, depth)) is not None)
        if rules:
            made.append(_draft(template_key, template, cluster, depth, rules))
    return made


def _draft(
    template_key: str, template: Strategy, cluster: ClusterView, depth: float | None, rules: tuple[Rule, ...]
) -> Draft:
    hour = cluster.best_hour if any(rule.when.schedule for rule in rules) else None
    offered = depth if _has_coupon(template) else None
    strategy = replace(
        template,
        key=_key(template_key, cluster, offered),
        name={
            language: f"{name} · {cluster.labels.get(language, cluster.label_key)}"
            for language, name in template.name.items()
        },
        rules=rules,
    )
    return Draft(strategy, template_key, cluster, offered, hour, _reasons(template, cluster, offered, hour))


def _key(template_key: str, cluster: ClusterView, depth: float | None) -> str:
    offer = "" if depth is None else f"-{depth:g}"
    # the lineage tells two clusters of one label apart, and stays the same over refits
    label = re.sub(r"[^a-z0-9]+", "-", cluster.label_key.lower())[:24].strip("-")
    return f"auto-{template_key.replace('_', '-')[:20]}-{label}-{cluster.lineage.hex[-6:]}{offer}"


def _rule(rule: Rule, cluster: ClusterView, depth: float | None) -> Rule | None:
    """The rule for this cluster alone; None when without a coupon nothing of it is left."""
    arms = _arms(rule, depth)
    if not any(arm.steps for arm in arms):
        return None
    plain = max((arm.prior.increment for arm in rule.arms if arm.prior and not _gives_coupon(arm)), default=0.0)
    when = rule.when
    if when.schedule and cluster.best_hour is not None:
        when = replace(when, schedule=_at_hour(when.schedule, cluster.best_hour))
    return replace(
        rule,
        when=when,
        condition=_within(cluster, rule.condition),
        arms=tuple(arm if depth is None else _deepened(arm, depth, plain) for arm in arms),
    )


def _arms(rule: Rule, depth: float | None) -> list[Arm]:
    """Those without a coupon, and of those with one the nearest to `depth`."""
    offering = [arm for arm in rule.arms if _gives_coupon(arm)]
    kept = min(offering, key=lambda arm: abs(_percent(arm) - depth), default=None) if depth is not None else None
    return [arm for arm in rule.arms if arm is kept or not _gives_coupon(arm)]


def _within(cluster: ClusterView, condition: Condition) -> Condition:
    member = Leaf("cluster.lineage", "equals", str(cluster.lineage), "label")
    inner = condition.children if isinstance(condition, Group) and condition.kind == "all" else (condition,)
    return Group("all", (member, *inner))


def _deepened(arm: Arm, depth: float, plain: float) -> Arm:
    """The arm with its coupon at `depth` percent. What the coupon adds to a plain message, and how often it is
    redeemed, is taken to grow with the discount, up to twice what the template says."""
    if not _gives_coupon(arm):
        return arm
    ratio = min(depth / _percent(arm), 2.0)
    prior = arm.prior
    if prior is not None:
        increment = plain + (prior.increment - plain) * ratio
        prior = Prior(round(increment, 6), round(min(prior.redemption * ratio, 1.0), 6))
    key = re.sub(r"\d+(\.\d+)?$", f"{depth:g}", arm.key)
    return replace(arm, key=key, prior=prior, steps=_mapped(arm.steps, lambda step: _with_percent(step, depth)))


def _with_percent(step: Step, depth: float) -> Step:
    return replace(step, parameters={**step.parameters, "percent": depth}) if _is_percentage(step) else step


def _mapped(steps: tuple[AnyStep, ...], change: Callable[[Step], Step]) -> tuple[AnyStep, ...]:
    return tuple(_changed(step, change) for step in steps)


def _changed(step: AnyStep, change: Callable[[Step], Step]) -> AnyStep:
    if isinstance(step, Step):
        return change(step)
    if isinstance(step, Wait | Branch):
        return replace(step, then=_mapped(step.then, change), otherwise=_mapped(step.otherwise, change))
    return step


def _at_hour(schedule: str, hour: int) -> str:
    """A daily or weekly cron expression at another hour; anything else stays as it is."""
    parts = schedule.split()
    if len(parts) == 5 and parts[1].isdigit():
        return " ".join([parts[0], str(hour), *parts[2:]])
    return schedule


def _is_percentage(step: Step) -> bool:
    """Whether it gives a coupon whose depth can be chosen; an amount or free shipping stays as it was written."""
    return step.action == "coupon" and "percent" in step.parameters


def _gives_coupon(arm: Arm) -> bool:
    return any(_is_percentage(one.step) for one in actions(arm))


def _percent(arm: Arm) -> float:
    return max(float(one.step.parameters["percent"]) for one in actions(arm) if _is_percentage(one.step))


def _has_coupon(template: Strategy) -> bool:
    return any(_gives_coupon(arm) for rule in template.rules for arm in rule.arms)


_SENSITIVITY: dict[str, dict[str, str]] = {
    "low": {"en": "buys at full price", "zh": "对价格不敏感"},
    "medium": {"en": "is somewhat sensitive to price", "zh": "对价格较敏感"},
    "high": {"en": "is sensitive to price", "zh": "对价格非常敏感"},
    "unknown": {"en": "has not shown how it takes prices", "zh": "价格敏感度未知"},
}


def _reasons(template: Strategy, cluster: ClusterView, depth: float | None, hour: int | None) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for language in ("en", "zh"):
        values: dict[str, Any] = {
            "label": cluster.labels.get(language, cluster.label_key), "size": cluster.size,
            "reachable": cluster.reachable, "kind": _SENSITIVITY[cluster.price_sensitivity][language],
            "depth": depth, "hour": hour,
        }  # fmt: skip
        lines = [template.why[language], _WHOM[language].format(**values)]
        if _has_coupon(template):
            lines.append((_NO_OFFER if depth is None else _OFFER)[language].format(**values))
        if hour is not None:
            lines.append(_HOUR[language].format(**values))
        told[language] = lines
    return told


_WHOM = {
    "en": "For the cluster {label}: {size} customers, {reachable} of whom may be written to.",
    "zh": "面向分群「{label}」：共 {size} 位客户，其中 {reachable} 位可触达。",
}
_OFFER = {
    "en": "The cluster {kind}, so {depth:g} % is offered.",
    "zh": "该分群{kind}，因此提供 {depth:g}% 优惠。",
}
_NO_OFFER = {
    "en": "The cluster {kind}, so nothing is given away: a reminder only.",
    "zh": "该分群{kind}，因此不提供优惠，仅作提醒。",
}
_HOUR = {
    "en": "Sent at {hour}:00, around which this cluster opens and clicks most.",
    "zh": "在 {hour}:00 发送：该分群在此时段打开和点击最多。",
}
