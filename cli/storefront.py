"""`opagent storefront`: load a shop from its own system, and see how far that is."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from operation_agent.store.shops import Shop
    from operation_agent.storefront.protocol import SyncKind
    from operation_agent.storefront.sync import Sync

app = typer.Typer(help="A shop's own system: loading from it, and how far that is.", no_args_is_help=True)

_POLL = 1.0


class Mode(StrEnum):
    first = "first"
    incremental = "incremental"
    reconcile = "reconcile"


OfShop = Annotated[str, typer.Option(help="The shop's slug or id.")]


@app.command()
def sync(
    shop: OfShop,
    mode: Annotated[
        Mode, typer.Option(help="first: everything; incremental: what changed since; reconcile: what was missed.")
    ] = Mode.incremental,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="products, collections, inventory, customers, orders or discounts; all when absent. May be repeated."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show how far it is until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a sync; the workers of a running `opagent up` do it. What is under way already goes on."""
    from cli.installation import engine, find_shop
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.store.session import for_shop
    from operation_agent.storefront import sync as syncs
    from operation_agent.storefront.protocol import SYNC_KINDS

    with engine() as database:
        found = find_shop(database, shop)
        with for_shop(database, found.id) as session:
            vendor = syncs.vendor_of(session, found.id)
            kinds = cast("tuple[SyncKind, ...]", tuple(kind or SYNC_KINDS))
            asked = syncs.ask(session, found, vendor, kinds, mode.value, at=SYSTEM.now(), actor="cli")
        made = _watched(database, found, asked, quiet=as_json) if watch else asked
    _show(made, as_json)
    if any(one.state == "failed" for one in made):
        raise typer.Exit(1)


@app.command()
def status(shop: OfShop, as_json: AsJson = False) -> None:
    """The newest sync of each kind: how far it is, what it found, and why it waits or failed."""
    from cli.installation import engine, find_shop
    from operation_agent.store.session import for_shop
    from operation_agent.storefront import sync as syncs

    with engine() as database:
        found = find_shop(database, shop)
        with for_shop(database, found.id) as session:
            newest = syncs.latest(session, found.id)
    _show(newest, as_json)


def _watched(database: Engine, shop: Shop, asked: list[Sync], *, quiet: bool) -> list[Sync]:
    """The syncs as they ended; meanwhile a line a second on standard error. Ctrl-C stops watching, not the sync."""
    from operation_agent.store.session import for_shop
    from operation_agent.storefront import sync as syncs

    while True:
        with for_shop(database, shop.id) as session:
            now = [syncs.get(session, shop.id, one.id) for one in asked]
        under_way = [one for one in now if one.state in syncs.OPEN]
        if not under_way:
            return now
        if not quiet:
            typer.echo(" · ".join(f"{one.kind} {_progress(one)}" for one in under_way), err=True)
        time.sleep(_POLL)


def _progress(one: Sync) -> str:
    share, left = one.share, one.left()
    told = f"{one.state} {share:.0%}" if share is not None and one.state != "done" else one.state
    return f"{told}, {left.total_seconds():.0f} s left" if left is not None else told


def _show(syncs: list[Sync], as_json: bool) -> None:
    if as_json:
        show_json([_told(one) for one in syncs])
        return
    if not syncs:
        print("nothing was synced yet; `opagent storefront sync --shop … --mode first` loads everything")
        return
    columns = ("kind", "mode", "state", "objects", "found", "refused", "when", "why")
    rows = (
        (one.kind, one.mode, _progress(one), f"{one.objects_done:,}", one.summary(), one.refused or "",
         f"{one.updated_at:%Y-%m-%d %H:%M}", one.error or "")
        for one in syncs
    )  # fmt: skip
    show_table(columns, rows)


def _told(one: Sync) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(one).items() if name not in ("url", "url_at", "wake_at")}
