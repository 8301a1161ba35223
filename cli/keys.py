"""`opagent key`: API keys of a shop."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import AsJson, show_json

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.command()
def create(
    shop: Annotated[str, typer.Option(help="The shop's slug or id.")],
    scopes: Annotated[str, typer.Option(help="Separated by commas: what the key may do.")] = "events:write",
    name: Annotated[str, typer.Option(help="To recognise it by.")] = "made by opagent key create",
    as_json: AsJson = False,
) -> None:
    """Make a key and print it once; the database holds only its digest."""
    from cli.installation import engine, find_shop
    from operation_agent.access.keys import create_key
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.store.session import for_shop

    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    with engine() as database:
        shop_id = find_shop(database, shop).id
        with for_shop(database, shop_id) as session:
            key, row = create_key(session, shop_id, name, wanted, SYSTEM.now(), actor="cli")
    if as_json:
        show_json({"key": key, "id": row.id, "shop": shop, "scopes": row.scopes})
    else:
        print(key)
