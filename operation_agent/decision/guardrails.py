"""What may stop a candidate: one pure function each, from what was found to why not.

All of them stand before the holdout draw, and each asks about every arm of the rule at once: whoever reaches the draw
could have been treated with any arm, so that treated and held-out customers, and the arms, can be compared.

A guardrail reads one JSON value, `given`: what was found of the customer and the limit it is held against. The receipt
keeps it, so that the verdict can be recomputed from the receipt alone. It answers with a detail that says why not, or
None. Times are seconds since 1970, spans seconds, money minor units of the shop's currency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any

from rules.limits import QuietHours

from .quiet_hours import is_quiet

Given = Any
Detail = dict[str, Any]
Guardrail = Callable[[Given], Detail | None]

DAY = 86_400.0


def is_consented(state: str | None, topic: str) -> bool:
    """Marketing needs a yes; what belongs to an order goes out unless there was a no."""
    return state == "subscribed" if topic == "marketing" else state != "unsubscribed"


def one_rule(given: Given) -> Detail | None:
    """{taken_by}: one trigger moves a customer by one rule of a strategy. It is asked of the other ones only."""
    return {"taken_by": given["taken_by"]} if given["taken_by"] else None


def enrolment(given: Given) -> Detail | None:
    """{frequency, cooldown?, at, first, last, key?}: when the customer entered this rule first and last, and last under
    the key of this trigger."""
    if given["frequency"] == "once":
        return {"frequency": "once", "entered_at": _instant(given["first"])}
    if given["frequency"] == "once_per_key" and given.get("key") is not None:
        return {"frequency": "once_per_key", "entered_at": _instant(given["key"])}
    cooldown = given.get("cooldown")
    # a late event may lie before the entry: the distance counts, not the direction
    if cooldown is not None and abs(given["at"] - given["last"]) < cooldown:
        return {"cooldown_days": _days(cooldown), "entered_at": _instant(given["last"])}
    return None


def exclusive(given: Given) -> Detail | None:
    """{group, at, belongs: [[strategy, until]]}: the other strategies of the group that the customer is in; `until`
    null: it has a step there still to come."""
    for strategy, until in given["belongs"]:
        if until is None or until > given["at"]:
            return {"group": given["group"], "taken_by": strategy, "until": None if until is None else _instant(until)}
    return None


def address(given: Given) -> Detail | None:
    """{asked, known}: channels. Each that is asked for needs somewhere to send to."""
    for channel in given["asked"]:
        if channel not in given["known"]:
            return {"channel": channel}
    return None


def suppression(given: Given) -> Detail | None:
    """{channel: reason}: where the customer's address may not be written to."""
    for channel, reason in sorted(given.items()):
        return {"channel": channel, "reason": reason}
    return None


def consent(given: Given) -> Detail | None:
    """{"channel/topic": state}: of every channel and topic that an arm would use; null: the customer never said."""
    for name, state in sorted(given.items()):
        channel, _, topic = name.partition("/")
        if not is_consented(state, topic):
            return {"channel": channel, "topic": topic, "state": state}
    return None


def complaint(given: Given) -> Detail | None:
    """{at, complained_at, cooldown}."""
    if given["complained_at"] <= given["at"] - given["cooldown"]:
        return None
    return {"complained_at": _instant(given["complained_at"]), "cooldown_days": _days(given["cooldown"])}


def cap(given: Given) -> Detail | None:
    """{caps: [{channel?, tag?, own?, count, window}], first: [[due, channel, tags, own]], messages: [the same]}: with
    the first message of each arm, no rolling window may hold more than its count. `messages`: what was or will be due
    for this customer, the held out counting alike."""
    for limit in given["caps"]:
        known = [message[0] for message in given["messages"] if counts(limit, message)]
        if len(known) < limit["count"]:
            continue
        for message in given["first"]:
            if counts(limit, message):
                most = fullest_window([*known, message[0]], message[:1], limit["window"])
                if most > limit["count"]:
                    return _capped(limit, most - 1)
    return None


def counts(limit: Mapping[str, Any], message: Sequence[Any]) -> bool:
    """Whether a cap counts a message [due, channel, tags, is of this strategy]."""
    _, channel, tags, own = message
    if limit.get("channel") not in (None, channel):
        return False
    tag = limit.get("tag")
    return (tag is None or tag in tags) and (own or not limit.get("own"))


def _capped(limit: Mapping[str, Any], planned: int) -> Detail:
    named = {name: limit[name] for name in ("channel", "tag") if limit.get(name)}
    scope = {"scope": "strategy"} if limit.get("own") else {}
    return {**named, **scope, "count": limit["count"], "window_days": _days(limit["window"]), "planned": planned}


def fullest_window(times: Sequence[float], touching: Sequence[float], span: float) -> int:
    """The most of `times` in any half-open window of `span` seconds that contains one of `touching`.

    Some fullest window ends at one of the times; only those within `span` after a touching one can contain it.
    """
    ends = [end for end in times if any(0 <= end - one < span for one in touching)]
    return max((sum(1 for one in times if 0 <= end - one < span) for end in ends), default=0)


def quiet_hours(given: Given) -> Detail | None:
    """{zone, hours: [[start, end]], due}: when the first message of each arm would be due."""
    for start, end in given["hours"]:
        quiet = QuietHours(time.fromisoformat(start), time.fromisoformat(end))
        for due in given["due"]:
            if is_quiet(datetime.fromtimestamp(due, UTC), given["zone"], quiet):
                return {"due_at": _instant(due), "zone": given["zone"], "start": start, "end": end}
    return None


def coupon(given: Given) -> Detail | None:
    """{limits: [{count, window}], stacking, due, coupons: [[at, until]]}: `due` of each arm's first coupon, and the
    customer's coupons so far; `until` when one stops being of use, null once redeemed."""
    times = [at for at, _ in given["coupons"]]
    for due in given["due"]:
        for limit in given["limits"] if times else ():
            most = fullest_window([*times, due], [due], limit["window"])
            if most > limit["count"]:
                return {"count": limit["count"], "window_days": _days(limit["window"]), "planned": most - 1}
        out = [until for _, until in given["coupons"] if until is not None and until > due]
        if out and not given["stacking"]:
            return {"outstanding_until": _instant(max(out))}
    return None


def executions(given: Given) -> Detail | None:
    """{most, taken, day, score?, cutoff?}: decisions to act of the strategy on that day of the shop's calendar. Below
    the cutoff, others of the same run would make more of the day's."""
    if given["taken"] >= given["most"]:
        return {"most": given["most"], "taken": given["taken"], "day": given["day"]}
    return _cut_off(given)


def budget(given: Given) -> Detail | None:
    """{needed, left, daily_left?, customer_left?, score?, cutoff?}: the dearest arm must be payable within each."""
    for part, name in (("left", "total"), ("daily_left", "daily"), ("customer_left", "per_customer")):
        left = given.get(part)
        if left is not None and given["needed"] > left:
            return {"needed_minor": given["needed"], "available_minor": max(left, 0), "limit": name}
    return _cut_off(given)


def _cut_off(given: Given) -> Detail | None:
    cutoff = given.get("cutoff")
    if cutoff is None or given["score"] > cutoff:
        return None
    # at the same score the line ends with one customer, by random key
    if given["score"] == cutoff and given.get("who", "") <= given.get("last", ""):
        return None
    return {"score": given["score"], "cutoff": cutoff}


GUARDRAILS: dict[str, tuple[Guardrail, str]] = {
    "one_rule": (one_rule, "nothing"),
    "enrolment": (enrolment, "already_enrolled"),
    "exclusive": (exclusive, "excluded"),
    "address": (address, "no_address"),
    "suppression": (suppression, "suppressed"),
    "consent": (consent, "no_consent"),
    "complaint": (complaint, "cooling_down"),
    "cap": (cap, "capped"),
    "quiet_hours": (quiet_hours, "quiet"),
    "coupon": (coupon, "coupon_limit"),
    "executions": (executions, "daily_limit"),
    "budget": (budget, "over_budget"),
}
"""Each guardrail with the decision's verdict when it is the first to fail, in the order in which they are asked."""

STOPS_AS = {name: verdict for name, (_, verdict) in GUARDRAILS.items()}


def judge(given: Mapping[str, Given]) -> dict[str, Detail]:
    """Every guardrail that stops, by name, also after one has: the receipt answers "and what else?". One that nothing
    was found for stops nobody."""
    return {name: detail for name, found in given.items() if (detail := GUARDRAILS[name][0](found)) is not None}


def verdict_of(stopped: Iterable[str]) -> str | None:
    """The verdict of the first guardrail, in their order, among those that stop."""
    names = set(stopped)
    return next((verdict for name, verdict in STOPS_AS.items() if name in names), None)


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _days(seconds: float) -> float:
    return round(seconds / DAY, 3)
