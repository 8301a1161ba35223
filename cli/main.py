"""The command line. Each command imports what it needs when it runs, so that `opagent --help` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    database,
    demo_command,
    imports,
    keys,
    rehearsal,
    shops,
    storefront,
    strategies,
    strategy_folder,
    users,
    work,
)
from cli.output import AsJson

app = typer.Typer(
    name="opagent",
    help="An operations agent for online shops: observe, group, decide, act, learn.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    data_dir: Annotated[
        Path | None, typer.Option(envvar="OPAGENT_DATA_DIR", help="Embedded servers, admin.json and secret.key.")
    ] = None,
) -> None:
    if data_dir is not None:
        os.environ["OPAGENT_DATA_DIR"] = str(data_dir)


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on; OPAGENT_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0: any free one; OPAGENT_PORT.")] = None,
) -> None:
    """Start the agent on this machine, and stop it with Ctrl-C."""
    from cli.up import run

    for name, value in (("OPAGENT_HOST", host), ("OPAGENT_PORT", port)):
        if value is not None:
            os.environ[name] = str(value)
    run()


@app.command()
def doctor(
    only: Annotated[list[str] | None, typer.Option(help="Only this check; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine and this installation, and say what to do."""
    from cli.doctor import run

    raise typer.Exit(run(as_json=as_json, only=frozenset(only or ())))


app.command("demo")(demo_command.demo)
app.add_typer(database.app, name="db")
app.add_typer(shops.app, name="shop")
app.add_typer(users.app, name="user")
app.add_typer(keys.app, name="key")
app.add_typer(storefront.app, name="storefront")
strategies.app.command()(strategy_folder.export)
strategies.app.command()(strategy_folder.apply)
strategies.app.command()(rehearsal.impact)
app.add_typer(strategies.app, name="strategy")
app.command("import")(imports.import_file)
app.command("cluster")(work.cluster)
app.command("backtest")(rehearsal.backtest)
app.command("bench")(work.bench)
app.command(
    "simulate", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)(work.simulate)


def main() -> None:
    """The console script. Raises SystemExit: 2 when the input is wrong, 1 for everything else that failed."""
    try:
        app()
    except Exception as error:
        line, code = _translated(error)
        if line is None:
            raise
        print(f"opagent: {line}", file=sys.stderr)
        sys.exit(code)


def _translated(error: Exception) -> tuple[str | None, int]:
    """The one border between our errors and the terminal."""
    from sqlalchemy.exc import OperationalError

    from operation_agent.kit.errors import AgentError, Rejected

    if isinstance(error, AgentError):
        where = f" ({error.where})" if error.where else ""
        return error.detail + where, 2 if isinstance(error, Rejected) else 1
    if isinstance(error, OperationalError):
        return f"the database does not answer: {' '.join(str(error.orig).split())}", 1
    if type(error).__module__.startswith("pydantic"):
        return "configuration: " + _settings_problem(error), 2
    return None, 1


def _settings_problem(error: Exception) -> str:
    problems = error.errors() if hasattr(error, "errors") else []
    return "; ".join(f"OPAGENT_{'__'.join(map(str, p['loc'])).upper()}: {p['msg']}" for p in problems) or str(error)
