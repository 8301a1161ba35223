"""What the demonstration prints: gathered over the HTTP API as one document, shown as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli.demo import Api

METRICS = ("orders", "revenue", "profit", "roi")
_PROFILE = ("orders", "revenue_minor", "days_since_order", "interpurchase_days")


def gather(api: Api, *, rows: dict[str, Any], truth: dict[str, Any], days: int) -> dict[str, Any]:
    """The whole result. Amounts are minor units; `truth` of an effect is the simulator's own counterfactual."""
    newest = api.get("/api/clusterings", limit=1)["items"][0]
    clustering = api.get(f"/api/clusterings/{newest['id']}")
    actions = api.get("/api/actions/summary")
    return {
        "days": days,
        "rows": rows,
        "clustering": {key: clustering[key] for key in ("version", "k", "customers", "quality", "clusters")},
        "strategies": api.get("/api/strategies"),
        "decisions": api.get("/api/decisions/summary"),
        "actions": actions["states"],
        "latency": actions["latencies"],
        "without_person": actions["without_person"],
        "effects": [_with_truth(effect, truth["truth"]) for effect in api.get("/api/effects")],
        "simulator": {key: truth[key] for key in ("counts", "totals", "replay_agrees", "seconds")},
    }


def _with_truth(effect: dict[str, Any], truth: dict[str, dict[str, float]]) -> dict[str, Any]:
    strategy = effect["strategy"] or "programme"
    true = truth.get(strategy, {})
    if effect["metric"] == "roi":
        value = true["profit"] / true["spend"] if true.get("spend") else None
    else:
        value = true.get(effect["metric"])
    return {**{k: effect[k] for k in ("metric", "treated", "held_out", "estimate", "lower", "upper", "reason")},
            "strategy": strategy, "truth": value}  # fmt: skip


def show(report: dict[str, Any]) -> None:
    """Print the tables to standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # a pipe has no width of its own
    for table in (_rows, _clusters, _strategies, _decisions, _actions, _effects, _proposals):
        console.print()
        console.print(table(report))
    share = report["without_person"]
    console.print(f"\nActions that needed no person: {_percent(share)}")
    console.print(f"The simulator's replay of its own run agrees: {'yes' if _agrees(report) else 'NO'}")


def _agrees(report: dict[str, Any]) -> bool:
    return bool(report["simulator"]["replay_agrees"])


def _table(title: str, *columns: str, left: int = 1) -> Any:
    """A table whose first `left` columns are words and whose others are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=index > 0)
    return table


def _rows(report: dict[str, Any]) -> Any:
    rows, simulator = report["rows"], report["simulator"]["counts"]
    table = _table("Loaded", "what", "rows")
    for name in ("read", "accepted", "duplicates", "rejected"):
        table.add_row(f"CDNOW purchases {name}", f"{rows[name]:,}")
    table.add_row("customers", f"{report['clustering']['customers']:,}")
    table.add_row(f"events in {report['days']} simulated days", f"{simulator['events']:,}")
    return table


def _clusters(report: dict[str, Any]) -> Any:
    clustering = report["clustering"]
    table = _table(
        f"Clusters (version {clustering['version']}, k = {clustering['k']})",
        "label", "标签", "customers", "orders", "revenue", "days since order", "days between", left=2,
    )  # fmt: skip
    for cluster in sorted(clustering["clusters"], key=lambda one: -one["size"]):
        profile = cluster["profile"]
        orders, revenue, recency, gap = (profile.get(name) for name in _PROFILE)
        table.add_row(
            cluster["labels"]["en"], cluster["labels"]["zh"], f"{cluster['size']:,}",
            _number(orders), _money(revenue), _number(recency), _number(gap),
        )  # fmt: skip
    return table


def _strategies(report: dict[str, Any]) -> Any:
    table = _table("Strategies", "strategy", "策略", "goal", "state", "holdout", left=4)
    for one in report["strategies"]:
        table.add_row(one["name"]["en"], one["name"]["zh"], one["goal"], one["state"], _percent(one["holdout"]))
    return table


def _decisions(report: dict[str, Any]) -> Any:
    counts: dict[str, dict[str, int]] = {}
    for row in report["decisions"]:
        counts.setdefault(row["strategy"], {})[row["verdict"]] = row["number"]
    verdicts = sorted({verdict for row in counts.values() for verdict in row}, key=lambda v: (v != "act", v))
    table = _table("Decisions, and why not", "strategy", *(verdict.replace("_", " ") for verdict in verdicts))
    for strategy, row in sorted(counts.items()):
        table.add_row(strategy, *(f"{row.get(verdict, 0):,}" for verdict in verdicts))
    return table


def _actions(report: dict[str, Any]) -> Any:
    latency = {row["channel"]: row for row in report["latency"]}
    table = _table(
        "Actions (latency: event received → provider called)", "channel", "state", "held out", "number",
        "p50 ms", "p99 ms", left=3,
    )  # fmt: skip
    for row in report["actions"]:
        timed = latency.get(row["channel"], {}) if row["state"] == "sent" and not row["held_out"] else {}
        table.add_row(
            row["channel"], row["state"], "yes" if row["held_out"] else "no", f"{row['number']:,}",
            _number(timed.get("p50_ms")), _number(timed.get("p99_ms")),
        )  # fmt: skip
    return table


def _effects(report: dict[str, Any]) -> Any:
    table = _table(
        "What it changed (95 % interval; truth: the simulator's counterfactual)", "strategy", "metric", "treated",
        "held out", "estimate", "from", "to", "truth", left=2,
    )  # fmt: skip
    order = {"programme": "~"}
    effects = sorted(report["effects"], key=lambda e: (order.get(e["strategy"], e["strategy"]), _place(e["metric"])))
    for effect in effects:
        shown = {"orders": _number, "roi": _ratio}.get(effect["metric"], _money)
        values = [shown(effect[key]) for key in ("estimate", "lower", "upper", "truth")]
        if effect["reason"]:
            values[0] = effect["reason"]
        table.add_row(
            effect["strategy"], effect["metric"], f"{effect['treated']:,}", f"{effect['held_out']:,}", *values
        )
    return table


def _proposals(report: dict[str, Any]) -> Any:
    """Expected over 30 days, from the templates' priors and what the holdouts showed so far."""
    columns = ("template", "cluster", "分群", "offer", "customers", "profit", "from", "to", "may commit")
    table = _table("What it proposes next (expected over 30 days, 95 % interval)", *columns, left=3)
    for one in report["proposals"]:
        expected, labels = one["prediction"], one["cluster"]["labels"]
        offer = "none" if one["depth"] is None else f"{one['depth']:g} %"
        table.add_row(
            one["template"].replace("_", " "), labels["en"], labels["zh"], offer, f"{expected['customers']:,.0f}",
            *(_money(expected[name]) for name in ("profit", "profit_lower", "profit_upper", "liability")),
        )  # fmt: skip
    return table


def _place(metric: str) -> int:
    return METRICS.index(metric) if metric in METRICS else len(METRICS)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _money(minor: float | None) -> str:
    return "–" if minor is None else f"{minor / 100:,.2f}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
