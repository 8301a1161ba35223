"""A receipt in words, in Chinese or English: why this, and why not that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from operation_agent.customers.definitions import FEATURES, LABEL_NAMES

from . import words

LANGUAGES = ("en", "zh")


def explain(receipt: Mapping[str, Any], locale: str) -> list[str]:
    """A receipt with all that its rule says (receipt.expanded), one line a sentence, for a locale such as 'zh-CN' or
    'en'; any other language gets English."""
    return _Explanation(receipt, _language(locale)).lines()


def tell_actions(actions: Sequence[Mapping[str, Any]], locale: str) -> list[str]:
    """What came of a decision (archive.actions_of), one line an action."""
    said = _Explanation({}, _language(locale))
    return [said.action(number, action) for number, action in enumerate(actions, start=1)]


def _language(locale: str) -> str:
    language = locale.replace("_", "-").split("-")[0].lower()
    return language if language in LANGUAGES else "en"


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
            *self.approval(),
            *self.arms(),
            self.estimator(),
            *self.may_skip(),
            *self.alternatives(),
            *self.others(),
            self.say(words.SEEN_TITLE),
            *(self.seen(leaf) for leaf in receipt["seen"] if isinstance(leaf, Mapping)),
        ]

    def guardrails(self) -> list[str]:
        found = self.receipt["guardrails"]
        lines = [self.stopped(name, detail) for name, detail in found.items() if detail is not True]
        passed = [self.say(words.GUARDRAILS[name]) for name, detail in found.items() if detail is True]
        return [*lines, self.say(words.PASSED, names=self.join(passed))] if passed else lines

    def stopped(self, name: str, detail: Mapping[str, Any]) -> str:
        values = {key: self.say(words.UNKNOWN_STATE) if value is None else value for key, value in detail.items()}
        kind = name
        if "cutoff" in detail or "outstanding_until" in detail:
            kind = f"{name}.{'cutoff' if 'cutoff' in detail else 'outstanding'}"
        elif name == "exclusive" and detail["until"] is None:
            kind = "exclusive.open"
        elif name == "cap":
            values["what"] = self.capped(detail)
        elif name == "budget":
            values["limit"] = self.say(words.BUDGET_LIMITS[detail.get("limit", "total")])
        return self.say(words.STOPPED[kind], name=self.say(words.GUARDRAILS[name]), **values)

    def capped(self, detail: Mapping[str, Any]) -> str:
        """Which messages a cap counts."""
        parts = []
        if detail.get("channel"):
            parts.append(self.say(words.CAP_ON, channel=detail["channel"]))
        if detail.get("tag"):
            parts.append(self.say(words.CAP_TAGGED, tag=detail["tag"]))
        named = " ".join(parts) if parts else self.say(words.CAP_ALL)
        return named + (self.say(words.CAP_OWN) if detail.get("scope") == "strategy" else "")

    def approval(self) -> list[str]:
        needed = self.receipt.get("approval")
        if not needed:
            return []
        why = self.join(self.say(words.APPROVAL_WHY[one["rule"]], **one) for one in needed["why"])
        return [self.say(words.APPROVAL, approvers=needed["approvers"], why=why)]

    def estimator(self) -> str:
        name = str(self.receipt["estimator"])
        kind, _, version = name.partition("/")
        known = f"{self.say(words.ESTIMATORS[kind])} ({version})" if kind in words.ESTIMATORS else name
        return self.say(words.ESTIMATOR, score=self.receipt["score"], estimator=known)

    def may_skip(self) -> list[str]:
        found = self.receipt.get("may_skip", {})
        return [self.say(words.MAY_SKIP, arm=arm, numbers=self.join(numbers)) for arm, numbers in found.items()]

    def alternatives(self) -> list[str]:
        lines = []
        chose = "side" in self.receipt
        for one in self.receipt.get("alternatives", ()):
            said = {"rule": one["rule"], "score": one["score"], "priority": one["priority"]}
            if "stopped" in one:
                why = " ".join(self.stopped(name, detail) for name, detail in one["stopped"].items())
                lines.append(
                    self.say(words.ALTERNATIVE_STOPPED if chose else words.ALTERNATIVE_TOO, **said, verdict=why)
                )
            else:
                lines.append(self.say(words.ALTERNATIVE_LATER, **said))
        return lines

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

    def arms(self) -> list[str]:
        arms = self.receipt.get("arms", ())
        return [self.say(words.ARMS, arms=self.join(self.arm(one) for one in arms))] if arms else []

    def arm(self, arm: Mapping[str, Any]) -> str:
        score = self.say(words.MARKS[None]) if arm["score"] is None else arm["score"]
        return self.say(words.ARM, key=arm["key"], share=arm["share"], score=score)

    def others(self) -> list[str]:
        names = self.receipt["others"]
        return [self.say(words.OTHERS, names=self.join(names))] if names else []

    def seen(self, leaf: Mapping[str, Any]) -> str:
        value = leaf.get("against", leaf.get("value"))
        field = leaf["field"]
        said = self.say(
            words.SEEN,
            mark=self.say(words.MARKS[leaf["holds"]]),
            field=self.history(leaf["history"]) if "history" in leaf else self.field(field),
            seen=self.value(field, leaf["seen"]),
            op=self.say(words.OPERATORS[leaf["op"]]),
            value="" if value is None else self.value(field, value),
        ).rstrip()
        if leaf["op"] == "changed":
            said += self.say(words.CHANGED, before=self.value(field, leaf.get("before")))
        if "for" in leaf:
            said += self.say(words.HELD, span=leaf["for"], since=self.value(field, leaf.get("since")))
        return said

    def history(self, asked: Mapping[str, Any]) -> str:
        """What a condition asked of past events."""
        named = asked.get("name") or asked["event"]
        said = self.say(words.HISTORY[asked["measure"]], event=named, of=asked.get("of"))
        within = asked.get("within")
        return self.say(words.HISTORY_WITHIN, asked=said, within=within) if within else said

    def action(self, number: int, action: Mapping[str, Any]) -> str:
        reason = f" ({action['reason']})" if action["reason"] else ""
        due_at = action["due_at"].isoformat()
        said = {"number": number, "type": action["type"], "state": action["state"], "reason": reason}
        return self.say(words.ACTION, **said, due_at=due_at)

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
        if isinstance(value, Mapping):
            return self.join(f"{key} {self.value(field, one)}" for key, one in value.items())
        named = LABEL_NAMES.get(field.removeprefix("customer."), {}).get(str(value))
        if named is not None:
            return named[self.language]
        return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)

    def join(self, parts: Any) -> str:
        return words.SEPARATOR[self.language].join(str(part) for part in parts)
