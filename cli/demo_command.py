"""`opagent demo`: the options; the demonstration itself is cli/demo.py."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import AsJson


def demo(
    serve: Annotated[bool, typer.Option(help="Go on serving after the tables, until Ctrl-C.")] = True,
    as_json: AsJson = False,
    days: Annotated[int, typer.Option(min=1, max=365, help="Days of the simulated shop's time.")] = 21,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw: the same seed gives the same figures.")] = 42,
) -> None:
    """The whole loop on real purchase histories: what it did, and what it earned."""
    from cli.demo import run

    run(serve=serve, as_json=as_json, days=days, seed=seed)
