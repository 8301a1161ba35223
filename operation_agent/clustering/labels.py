"""What a cluster is called, and why: stated rules over its profile beside everybody's.

RULES is read from the top; the first whose every condition holds names the cluster. Two clusters named by one rule
keep its key (a rule of the shop may point at the key) and are told apart in the text by the feature in which they
differ most. Labels are data in both languages; `why` names the figures that decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .phrases import FALLBACK, FEATURE_WORDS, RULES, STATISTIC_WORDS, TIMES_WORDS, Condition, Rule

LANGUAGES = ("en", "zh")


@dataclass(frozen=True, eq=False)
class Profile:
    """Statistics of one group (or of everybody), by feature, in the feature's own unit.

    `median`, `mean`: over those for whom it is known (NaN when nobody). `active`: share of all members for whom it is
    known and above zero. `position`: where the group's median stands among everybody, 0 lowest to 1 highest.
    """

    size: int
    median: Mapping[str, float]
    mean: Mapping[str, float]
    active: Mapping[str, float]
    position: Mapping[str, float]

    def value(self, statistic: str, feature: str) -> float:
        return float(getattr(self, statistic).get(feature, np.nan))

    def as_json(self) -> dict[str, float | None]:
        """The medians, None where nobody has the feature."""
        return _plain(self.median)


@dataclass(frozen=True, slots=True)
class Label:
    """`key` is stable and may be shared; `labels` = {"en", "zh", "why": {"en", "zh"}, "also": other keys that hold}."""

    key: str
    labels: dict[str, Any]


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else round(float(value), 4) for name, value in values.items()}


# -- profiles -----------------------------------------------------------------------------------------------------


def profiles(columns: Mapping[str, NDArray[Any]], numbers: NDArray[Any], k: int) -> tuple[list[Profile], Profile]:
    """Of each cluster, and of everybody. `columns`: name -> float array, NaN = missing; `numbers`: 0..k-1."""
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(k + 1))
    parts: list[dict[str, dict[str, float]]] = [{} for _ in range(k)]
    whole: dict[str, dict[str, float]] = {}
    for name, values in columns.items():
        values = np.asarray(values, np.float64)
        ranked = np.sort(values[~np.isnan(values)])
        grouped = values[order]
        whole[name] = _statistics(values, ranked)
        for number in range(k):
            parts[number][name] = _statistics(grouped[bounds[number] : bounds[number + 1]], ranked)
    sizes = np.diff(bounds)
    return [_profile(int(size), part) for size, part in zip(sizes, parts, strict=True)], _profile(len(numbers), whole)


def _statistics(values: NDArray[Any], everybody: NDArray[Any]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return {"median": np.nan, "mean": np.nan, "active": 0.0, "position": np.nan}
    median = float(np.median(known))
    below, upto = np.searchsorted(everybody, median, "left"), np.searchsorted(everybody, median, "right")
    return {
        "median": median,
        "mean": float(known.mean()),
        "active": float((known > 0).sum() / len(values)),
        "position": float((below + upto) / 2 / len(everybody)),
    }


def _profile(size: int, by_feature: Mapping[str, Mapping[str, float]]) -> Profile:
    kinds = ("median", "mean", "active", "position")
    return Profile(size, **{kind: {name: one[kind] for name, one in by_feature.items()} for kind in kinds})


# -- names --------------------------------------------------------------------------------------------------------


def label(
    clusters: Sequence[Profile], everybody: Profile, *, currency_digits: int = 2, currency: str = ""
) -> list[Label]:
    """A label for each cluster, in order; no two have the same text in either language."""
    money = _Money(currency_digits, currency)
    holding = [[rule for rule in RULES if _holds(rule, one, everybody)] or [FALLBACK] for one in clusters]
    chosen = [rules[0] for rules in holding]
    texts = {language: [rule.text[language] for rule in chosen] for language in LANGUAGES}
    _tell_apart(chosen, clusters, texts)
    return [
        Label(
            rule.key,
            {
                **{language: texts[language][place] for language in LANGUAGES},
                "why": {language: _why(rule, clusters[place], everybody, language, money) for language in LANGUAGES},
                "also": [other.key for other in holding[place][1:]],
            },
        )
        for place, rule in enumerate(chosen)
    ]


def _holds(rule: Rule, one: Profile, everybody: Profile) -> bool:
    return all(any(_true(condition, one, everybody) for condition in choice) for choice in rule.conditions)


def _true(condition: Condition, one: Profile, everybody: Profile) -> bool:
    """A figure that cannot be computed (nobody has the feature) makes no condition true."""
    value = one.value(condition.statistic, condition.feature)
    bound = condition.bound
    if condition.times_everybody:
        bound *= everybody.value(condition.statistic, condition.feature)
    if condition.times_feature is not None:
        bound *= one.value(condition.statistic, condition.times_feature)
    if np.isnan(value) or np.isnan(bound):
        return False
    return bool(value >= bound if condition.at_least else value <= bound)


@dataclass(frozen=True, slots=True)
class _Money:
    digits: int
    currency: str

    def written(self, minor: float) -> str:
        return f"{minor / 10**self.digits:.{self.digits}f} {self.currency}".rstrip()


def _why(rule: Rule, one: Profile, everybody: Profile, language: str, money: _Money) -> str:
    """Of each choice, the first condition that is true: the group's figure beside everybody's."""
    held = [next(one_of for one_of in choice if _true(one_of, one, everybody)) for choice in rule.conditions]
    told = {condition.feature: condition for condition in reversed(held)}  # the first about each feature
    facts = [
        _fact(condition, one, everybody, language, money) for condition in held if told[condition.feature] is condition
    ]
    share = f"{one.size / max(everybody.size, 1):.1%}"
    return rule.reason[language].format(facts=_SEPARATOR[language].join(facts), share=share)


_SEPARATOR = {"en": "; ", "zh": "；"}
_UNKNOWN = {"en": "unknown", "zh": "未知"}


def _fact(condition: Condition, one: Profile, everybody: Profile, language: str, money: _Money) -> str:
    def written(profile: Profile, statistic: str) -> str:
        return _written(profile.value(statistic, condition.feature), statistic, condition.feature, language, money)

    fact = STATISTIC_WORDS[condition.statistic][language].format(
        feature=FEATURE_WORDS[condition.feature].name[language],
        value=written(one, condition.statistic),
        everybody=written(everybody, condition.statistic),
        median=written(one, "median"),
    )
    if condition.times_feature is None:
        return fact
    base = one.value(condition.statistic, condition.times_feature)
    times = f"{one.value(condition.statistic, condition.feature) / base:.1f}" if base else "∞"
    return fact + TIMES_WORDS[language].format(times=times, other=FEATURE_WORDS[condition.times_feature].name[language])


def _written(value: float, statistic: str, feature: str, language: str, money: _Money) -> str:
    kind = FEATURE_WORDS[feature].kind
    if np.isnan(value):
        return _UNKNOWN[language]
    if statistic in ("active", "position") or kind == "share":
        return f"{value:.0%}"
    if kind == "money":
        return money.written(value)
    return f"{value:.1f}".removesuffix(".0")


# -- two clusters, one name ---------------------------------------------------------------------------------------


def _tell_apart(chosen: Sequence[Rule], clusters: Sequence[Profile], texts: dict[str, list[str]]) -> None:
    for key in {rule.key for rule in chosen}:
        same = [place for place, rule in enumerate(chosen) if rule.key == key]
        if len(same) < 2:
            continue
        for language in LANGUAGES:
            for place, suffix in _suffixes([clusters[place] for place in same], same, language):
                texts[language][place] = _JOIN[language].format(texts[language][place], suffix)


_JOIN = {"en": "{} ({})", "zh": "{}（{}）"}
_RANK = {"en": "{} no. {} of {}", "zh": "{}第{}（共{}组）"}
_NUMBER = {"en": "no. {} of {} by size", "zh": "规模第{}（共{}组）"}


def _suffixes(group: Sequence[Profile], places: Sequence[int], language: str) -> list[tuple[int, str]]:
    feature = _distinguishing(group)
    if feature is None:
        order = sorted(range(len(group)), key=lambda at: -group[at].size)
        return [(places[at], _NUMBER[language].format(rank + 1, len(group))) for rank, at in enumerate(order)]
    words = FEATURE_WORDS[feature]
    order = sorted(range(len(group)), key=lambda at: -group[at].mean[feature])
    if len(group) == 2:
        return [(places[order[0]], words.high[language]), (places[order[1]], words.low[language])]
    return [
        (places[at], _RANK[language].format(words.name[language], rank + 1, len(group)))
        for rank, at in enumerate(order)
    ]


def _distinguishing(group: Sequence[Profile]) -> str | None:
    """The feature in which the group stands furthest apart among everybody; None when none orders all of them."""
    best, widest = None, 0.0
    for feature in FEATURE_WORDS:
        means = sorted(one.mean.get(feature, np.nan) for one in group)
        if np.isnan(means).any() or not all(low < high for low, high in pairwise(means)):
            continue
        places = [one.position[feature] for one in group]
        # medians of counts are often equal: then the means decide, with little weight
        spread = max(places) - min(places) + 0.1 * (means[-1] - means[0]) / (abs(means[-1]) + abs(means[0]))
        if spread > widest + 1e-12:
            best, widest = feature, spread
    return best
