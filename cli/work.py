"""`opagent cluster`, `simulate` and `bench`: work that otherwise the scheduler, a shop or nobody would start."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from cli.output import AsJson, show_json, show_table

BENCHES = ("intake", "shopify_intake", "pipeline", "clustering", "rules", "campaign", "backtest", "first_load")


def cluster(
    shop: Annotated[str, typer.Option(help="The shop's slug or id.")],
    as_json: AsJson = False,
) -> None:
    """Refresh every customer's features, fit the clusters anew, and assign everyone."""
    from cli.installation import engine, find_shop
    from operation_agent.clustering import job
    from operation_agent.kit.clock import SYSTEM

    with engine() as database:
        found = find_shop(database, shop)
        summary = job.run(database, found, now=SYSTEM.now())
    if as_json:
        show_json(summary)
        return
    clusters = summary.pop("clusters", [])
    for name, value in summary.items():
        print(f"{name}: {value}")
    if clusters:
        columns = [name for name in clusters[0] if not isinstance(clusters[0][name], dict | list)]
        show_table(columns, ([one[name] for name in columns] for one in clusters))


def simulate(context: typer.Context) -> None:
    """Run the sandbox shop and its providers; the options are the simulator's own."""
    raise typer.Exit(subprocess.call([sys.executable, "-P", "-m", "simulator", *context.args]))


def bench(
    name: Annotated[
        str | None, typer.Argument(help="One of bench/: intake, pipeline, clustering, rules; all when absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The measured comparisons with named peers."""
    from operation_agent.kit.errors import NotFound

    if name is not None and name not in BENCHES:
        raise NotFound(f"there is no bench {name!r}; there are: {', '.join(BENCHES)}")
    codes = [
        subprocess.call([sys.executable, "-P", "-m", f"bench.{one}", *(["--json"] if as_json else [])])
        for one in ([name] if name else BENCHES)
    ]
    raise typer.Exit(max(codes, default=0))
