"""`opagent shop`: make and list shops."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import AsJson, show_json, show_table

app = typer.Typer(help="Shops: the tenants.", no_args_is_help=True)


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
    currency: Annotated[str, typer.Option(help="ISO 4217 code of all its amounts.")],
    name: Annotated[str | None, typer.Option(help="As people call it; the slug when absent.")] = None,
    time_zone: Annotated[str, typer.Option(help="IANA time zone, such as Asia/Shanghai.")] = "UTC",
    margin_rate: Annotated[float, typer.Option(help="Gross margin of what it sells, 0 to 1.")] = 0.4,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Never reaches a real provider; has its own clock.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a shop."""
    from decimal import Decimal

    from cli.installation import engine
    from operation_agent.kit.errors import Rejected
    from operation_agent.store.shops import create_shop

    if not 0 <= margin_rate <= 1:
        raise Rejected("a margin rate lies between 0 and 1", where="--margin-rate")
    with engine() as database:
        shop = create_shop(
            database, slug=slug, name=name or slug, currency=currency.upper(), time_zone=time_zone, sandbox=sandbox,
            margin_rate=Decimal(str(margin_rate)), actor="cli",
        )  # fmt: skip
    if as_json:
        show_json({"id": shop.id, "slug": shop.slug, "currency": shop.currency, "time_zone": shop.time_zone})
    else:
        print(f"made the shop {shop.slug} ({shop.id}); `opagent key create --shop {shop.slug}` makes its first key")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the shops."""
    from cli.installation import engine
    from operation_agent.store.session import for_system
    from operation_agent.store.shops import list_shops

    with engine() as database, for_system(database) as session:
        shops = list_shops(session)
    if as_json:
        show_json(
            [
                {
                    "id": s.id, "slug": s.slug, "name": s.name, "currency": s.currency, "time_zone": s.time_zone,
                    "sandbox": s.sandbox, "now": s.now(),
                }
                for s in shops
            ]
        )  # fmt: skip
    else:
        rows = (
            (s.slug, s.name, s.currency, s.time_zone, "yes" if s.sandbox else "", f"{s.now():%Y-%m-%d %H:%M}")
            for s in shops
        )
        show_table(("slug", "name", "currency", "time zone", "sandbox", "its time"), rows)
