"""`opagent db`: bring the schema to the newest revision, or say where it is."""

from __future__ import annotations

import typer

from cli.output import AsJson, show_json

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Migrate to the newest revision. Safe to repeat."""
    from cli.installation import database_url
    from migrations.run import head, upgrade

    with database_url() as url:
        upgrade(url)
    print(f"the database is at revision {head()}")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Exit code 1 unless the database is at the newest revision."""
    from cli.installation import database_url
    from migrations.run import current, head
    from operation_agent.store.engine import connect

    with database_url() as url:
        engine = connect(url, pool_size=1)
        with engine.connect() as connection:
            found = current(connection)
        engine.dispose()
    if as_json:
        show_json({"current": found, "head": head(), "up_to_date": found == head()})
    else:
        print(f"the database is at revision {found or 'none'}; the newest is {head()}")
    raise typer.Exit(0 if found == head() else 1)
