"""`opagent user`: people who may log in."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated

import typer

from cli.output import AsJson, show_json

app = typer.Typer(help="People who log in.", no_args_is_help=True)


@app.command()
def create(
    email: Annotated[str, typer.Argument(help="What the person logs in with.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input; else one is drawn.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a user. A password that is drawn is printed once."""
    from cli.installation import engine
    from operation_agent.access.users import create_user
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.store.session import for_system

    password = sys.stdin.readline().rstrip("\n") if password_stdin else secrets.token_urlsafe(18)
    with engine() as database, for_system(database) as session:
        user = create_user(session, email, password, SYSTEM.now())
    made = {"id": user.id, "email": user.email} | ({} if password_stdin else {"password": password})
    if as_json:
        show_json(made)
    else:
        print("\n".join(f"{name}: {value}" for name, value in made.items()))
