"""A receipt in words, in Chinese or English: why this, and why not that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operation_agent.customers.definitions import FEATURES, LABEL_NAMES

from . import words

LANGUAGES = ("en", "zh")


def explain(receipt: Mapping[str, Any], locale: str) -> list[str]:
    """One line a sentence, for a locale such as 'zh-CN' or 'en'; any other language gets English."""
    language = locale.replace("_", "-").split("-")[0].lower()
    return _Explanation(receipt, language if language in LANGUAGES else "en").lines()


class _Explanation:
    def __init__(self, receipt: Mapping[str, Any], language: str):
        self.receipt = receipt
        self.language = language

    def say(self, sentences: Mapping[str, str], **values: Any) -> str:
        return sentences[self.language].format(**values)

    def lines(self) -> list[str]:
        receipt = self.receipt
        rule, cause = receipt["rule"], receipt["cause"]
        head = {"strategy": receipt["strategy"], "rule": rule["key"], "version": rule["version"]}
        return [
            self.say(words.HEADER, **head, trigger=cause["trigger"], at=cause["at"]),
            self.say(words.VERDICTS[receipt["verdict"]], arm=receipt["arm"]),
            *self.guardrails(),
            *self.side(),
            self.say(words.ARMS, arms=self.join(self.arm(one) for one in receipt["arms"])),
            *self.others(),
            self.say(words.SEEN_TITLE),
            *(self.seen(leaf) for leaf in receipt["seen"]),
        ]

    def guardrails(self) -> list[str]:
        found = self.receipt["guardrails"]
        names = {name: self.say(words.GUARDRAILS[name]) for name in found}
        lines = [
            self.say(words.STOPPED[name], name=names[name], **self.detail(detail))
            for name, detail in found.items()
            if detail is not True
        ]
        passed = [names[name] for name, detail in found.items() if detail is True]
        return [*lines, self.say(words.PASSED, names=self.join(passed))] if passed else lines

    def detail(self, detail: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.say(words.UNKNOWN_STATE) if value is None else value for key, value in detail.items()}

    def side(self) -> list[str]:
        side = self.receipt.get("side")
        if side is None:
            return []
        name = self.say(words.SIDES[side["held_out"]])
        propensity = self.say(words.PROPENSITY, propensity=self.receipt["propensity"])
        if side["kept"]:
            return [self.say(words.SIDE_KEPT, side=name), propensity]
        first, second = side["draws"]
        drawn = {"first": first["draw"], "first_share": first["share"]}
        drawn |= {"second": second["draw"], "second_share": second["share"]}
        return [self.say(words.SIDE_DRAWN, **drawn, side=name), propensity]

    def arm(self, arm: Mapping[str, Any]) -> str:
        score = self.say(words.MARKS[None]) if arm["score"] is None else arm["score"]
        return self.say(words.ARM, key=arm["key"], share=arm["share"], score=score)

    def others(self) -> list[str]:
        names = self.receipt["others"]
        return [self.say(words.OTHERS, names=self.join(names))] if names else []

    def seen(self, leaf: Mapping[str, Any]) -> str:
        value = leaf.get("against", leaf.get("value"))
        return self.say(
            words.SEEN,
            mark=self.say(words.MARKS[leaf["holds"]]),
            field=self.field(leaf["field"]),
            seen=self.value(leaf["field"], leaf["seen"]),
            op=self.say(words.OPERATORS[leaf["op"]]),
            value="" if value is None else self.value(leaf["field"], value),
        ).rstrip()

    def field(self, name: str) -> str:
        room, _, feature = name.partition(".")
        if room == "customer" and feature in FEATURES:
            return FEATURES[feature].labels[self.language]
        return words.CLUSTER_FIELDS.get(name, {}).get(self.language, name)

    def value(self, field: str, value: Any) -> str:
        if value is None:
            return self.say(words.MISSING)
        if isinstance(value, list):
            return self.join(self.value(field, one) for one in value)
        if isinstance(value, bool):
            return self.say(words.MARKS[value])
        named = LABEL_NAMES.get(field.removeprefix("customer."), {}).get(str(value))
        if named is not None:
            return named[self.language]
        return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)

    def join(self, parts: Any) -> str:
        return words.SEPARATOR[self.language].join(str(part) for part in parts)
