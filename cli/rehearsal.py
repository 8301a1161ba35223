"""`opagent backtest`: a strategy held against the last days as they really were; `opagent strategy impact`: what
publishing it would mean now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import AsJson, show_json, show_table
from cli.strategies import Exit, Key, ShopName

WEEKLY_FROM = 22
"""Days from which on a line is a week."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "en": ("since", "decisions", "acts", "held out", "stopped", "sends", "put off", "ended", "spend", "overlap"),
    "zh": ("起始日", "决策", "执行", "对照组", "拦截", "发送", "顺延", "已达成", "花费", "重叠"),
}
TOTALS: dict[str, tuple[str, ...]] = {
    "en": ("total", "this version", "live", "difference"),
    "zh": ("合计", "此版本", "线上版本", "差异"),
}
NAMES: dict[str, dict[str, str]] = {
    "decisions": {"en": "decisions", "zh": "决策"},
    "act": {"en": "acts", "zh": "执行"},
    "holdout": {"en": "held out", "zh": "对照组"},
    "nothing": {"en": "does nothing", "zh": "不动作"},
    "already_enrolled": {"en": "stopped: entered before", "zh": "拦截：已进入过"},
    "excluded": {"en": "stopped: exclusive group", "zh": "拦截：同组互斥"},
    "no_address": {"en": "stopped: no address", "zh": "拦截：无地址"},
    "suppressed": {"en": "stopped: suppressed", "zh": "拦截：禁发"},
    "no_consent": {"en": "stopped: no consent", "zh": "拦截：未同意"},
    "cooling_down": {"en": "stopped: complained", "zh": "拦截：投诉冷却"},
    "capped": {"en": "stopped: caps", "zh": "拦截：频次上限"},
    "quiet": {"en": "stopped: quiet hours", "zh": "拦截：免打扰"},
    "coupon_limit": {"en": "stopped: coupons", "zh": "拦截：优惠券限制"},
    "daily_limit": {"en": "stopped: the day's limit", "zh": "拦截：每日上限"},
    "over_budget": {"en": "stopped: budget", "zh": "拦截：预算"},
    "email": {"en": "e-mails", "zh": "邮件"},
    "coupon": {"en": "coupons", "zh": "优惠券"},
    "customers": {"en": "customers acted on", "zh": "触达顾客数"},
    "moved": {"en": "put off by quiet hours", "zh": "因免打扰顺延"},
    "ended": {"en": "ended by a goal before", "zh": "目标已达成而取消"},
    "may_skip": {"en": "later messages caps may skip", "zh": "后续可能被上限跳过"},
    "spend_minor": {"en": "spend at most", "zh": "最高花费"},
    "expected_minor": {"en": "expected value", "zh": "预期价值"},
    "overlap": {"en": "overlap with other strategies", "zh": "与其他策略重叠"},
    "under_way": {"en": "still waiting at the end", "zh": "结束时仍在途"},
}
TITLES = {
    "en": "{strategy}, {days} days up to {until}: {looked:,} triggers looked at",
    "zh": "{strategy}，截至 {until} 的 {days} 天：共检查 {looked:,} 次触发",
}
ASSUMED = {"en": "Assumptions:", "zh": "前提："}


def backtest(
    strategy: Key,
    shop: ShopName,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days back.")] = 90,
    version: Annotated[
        str, typer.Option(help="draft, live or a version's number; by default the draft if there is one.")
    ] = "",
    file: Annotated[Path | None, typer.Option(help="A definition that is not saved; YAML or JSON.")] = None,
    language: Annotated[str, typer.Option(help="en or zh.")] = "en",
    as_json: AsJson = False,
) -> None:
    """Hold a strategy against the last days as they really were, beside what is live. Nothing is written."""
    from operation_agent.kit.errors import Rejected

    if language not in TITLES:
        raise Rejected(f"{language[:20]!r} is neither en nor zh", where="--language")
    if file is not None and version:
        raise Rejected("give either --file or --version", where="--file")
    told, digits = _run(strategy, shop, days, version, file)
    if as_json:
        show_json(told)
    else:
        _show(strategy, days, told, digits, language)


def impact(
    key: Key,
    shop: ShopName,
    version: Annotated[
        str, typer.Option(help="draft, live or a version's number; by default the draft if there is one.")
    ] = "",
    exit_in_flight: Exit = False,
    as_json: AsJson = False,
) -> None:
    """What publishing a version would mean now: whom it takes, what it may cost, who is under way, what it meets."""
    from cli.strategies import in_shop
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.kit.money import minor_digits
    from operation_agent.rehearsal import backtests
    from operation_agent.rehearsal import impact as impacts

    with in_shop(shop) as (session, found):
        choice = backtests.choose(session, found.id, key, version=_version(version))
        measured = impacts.measure(
            session, found, choice.strategy, at=SYSTEM.now() + found.clock_offset, real=choice.row,
            live=choice.live or (choice.strategy if choice.version == choice.row.version else None),
            in_flight="exit" if exit_in_flight else "finish",
        )  # fmt: skip
        told = measured.to_dict()
    if as_json:
        show_json(told)
    else:
        _show_impact(told, minor_digits(found.currency))


def _run(strategy: str, shop: str, days: int, version: str, file: Path | None) -> tuple[dict[str, Any], int]:
    from cli.strategies import in_shop, read_content
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.kit.money import minor_digits
    from operation_agent.rehearsal import backtest, backtests
    from operation_agent.rehearsal.untouched import forbid_writing
    from operation_agent.strategies import document

    definition = document.read(read_content(file), name=str(file)) if file is not None else None
    with in_shop(shop) as (session, found):
        forbid_writing(session)
        choice = backtests.choose(
            session, found.id, strategy, version=_version(version), definition=definition
        )  # fmt: skip
        result = backtest.run(
            session, found, choice.strategy, days=days, until=SYSTEM.now() + found.clock_offset, live=choice.live,
            real_id=choice.row.id,
        )  # fmt: skip
    told = {"strategy": choice.row.key, "version": choice.version, "live_version": choice.live_version}
    return {**told, **result.to_dict()}, minor_digits(found.currency)


def _version(written: str) -> str | None:
    from cli.strategies import read_version

    return str(read_version(written)) if written else None


# -- what is shown ------------------------------------------------------------------------------------------------


def _show(strategy: str, days: int, told: Mapping[str, Any], digits: int, language: str) -> None:
    until = str(told["until"])[:16].replace("T", " ")
    print(TITLES[language].format(strategy=strategy, days=days, until=until, looked=told["looked_at"]))
    step = 7 if days >= WEEKLY_FROM else 1
    every = told["draft"]["days"]
    show_table(COLUMNS[language], (_line(every[at : at + step], digits) for at in range(0, len(every), step)))
    show_table(TOTALS[language], _totals(told, digits, language))
    print(ASSUMED[language])
    for line in told["assumptions"][language]:
        print(f"  {line}")


def _show_impact(told: Mapping[str, Any], digits: int) -> None:
    print(f"{told['customers']:,} customers looked at")
    columns = ("rule", "change", "matching", "reachable", "acts", "held out", "at most", "expected")
    show_table(columns, ([*(one[name] for name in ("rule", "change", "matching", "reachable", "acts", "held_out")),
                          _money(one["at_most_minor"], digits), _money(one["expected_minor"], digits)]
                         for one in told["rules"]))  # fmt: skip
    for rule in told["rules"]:
        stopped = {name: n for name, n in rule["verdicts"].items() if name not in ("act", "holdout", "nothing")}
        if stopped:
            print(f"  {rule['rule']} stopped: {', '.join(f'{name} {n:,}' for name, n in stopped.items())}")
    for one in told["in_flight"]:
        what = "planned actions" if one["is_planned"] else "customers wait"
        print(f"  {one['customers']:,} {what} at {one['step']} of {one['rule']} (version {one['version']}, step"
              f" {one['step_is']}): {one['goes']}")  # fmt: skip
    for one in told["conflicts"]:
        why = ", ".join(sorted({str(reason["why"]) for reason in one["why"]}))
        print(f"  {one['customers']:,} customers of {one['rule']} are matched by {one['other']} as well: {why}")
    for one in told["empty_variables"]:
        print(f"  {one['variable']} in {one['rule']}/{one['step']} would be empty for {one['customers']:,} customers")


def _line(days: list[dict[str, Any]], digits: int) -> list[str]:
    verdicts = [day["verdicts"] for day in days]
    acts, held_out, nothing = (
        sum(one.get(name, 0) for one in verdicts) for name in ("act", "holdout", "nothing")
    )  # fmt: skip
    decisions = sum(day["decisions"] for day in days)
    sends = sum(sum(day["sends"].values()) for day in days)
    moved, ended, spend, overlap = (sum(day[name] for day in days) for name in _SUMS)
    stopped = decisions - acts - held_out - nothing
    numbers = (decisions, acts, held_out, stopped, sends, moved, ended)
    return [days[0]["day"], *(f"{one:,}" for one in numbers), _money(spend, digits), f"{overlap:,}"]


_SUMS = ("moved", "ended", "spend_minor", "overlap")


def _totals(told: Mapping[str, Any], digits: int, language: str) -> Iterable[list[str]]:
    mine = _flat(told["draft"]["total"])
    live = _flat(told["live"]["total"]) if told["live"] is not None else None
    for name in [one for one in NAMES if one in mine or (live is not None and one in live)]:
        number = mine.get(name, 0)
        shown = [NAMES[name][language], _number(name, number, digits)]
        if live is None:
            yield [*shown, "-", "-"]
        else:
            other = live.get(name, 0)
            yield [*shown, _number(name, other, digits), _number(name, number - other, digits, sign="+")]


def _flat(total: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in total.items() if not isinstance(value, dict)}
    return {**plain, **total["verdicts"], **total["sends"]}


def _number(name: str, value: Any, digits: int, *, sign: str = "") -> str:
    return _money(value, digits, sign=sign) if name.endswith("_minor") else f"{value:{sign},}"


def _money(minor: int, digits: int, *, sign: str = "") -> str:
    return f"{minor / 10**digits:{sign},.{digits}f}"
