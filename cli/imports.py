"""`opagent import`: past orders from a file, with a progress bar and a report of every row that was refused."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import AsJson, show_json

if TYPE_CHECKING:
    from operation_agent.events.importing import ImportReport
    from operation_agent.events.online_retail_totals import Totals


def import_file(
    file: Annotated[
        str,
        typer.Argument(
            help="A .csv, .xlsx or .parquet file; or `cdnow`, `online-retail`: public data, by the name it goes by."
        ),
    ],
    shop: Annotated[str, typer.Option(help="The shop's slug or id.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="ROLE=COLUMN,...",
            help="Which column is the customer, date, amount, order, currency, quantity, discount, email or phone;"
            " also date_format and sheet. What is not said is guessed from the names. May be repeated.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="After `online-retail`: its file; otherwise looked for in this folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import orders. Killed or repeated, the same command goes on where it stopped and stores nothing twice."""
    from dataclasses import asdict

    from cli.console import Console
    from cli.installation import engine, find_shop
    from operation_agent.events import importing

    console = Console(quiet=as_json)
    path, preset = which_file(file, data)
    with engine() as database:
        found = find_shop(database, shop)
        with console.progress(f"importing {file}") as progress:
            report = importing.import_file(
                database, found, path, mapping=parse_mapping(columns or []), progress=progress, preset=preset
            )
    if as_json:
        show_json(asdict(report))
    else:
        _show(report)


def which_file(file: str, data: str | None) -> tuple[str, str | None]:
    """The path, and the preset by which it is read, of the two arguments. Raises Rejected."""
    from operation_agent.events import importing, online_retail
    from operation_agent.kit.errors import Rejected

    if file == importing.ONLINE_RETAIL:
        return data or str(online_retail.find()), importing.ONLINE_RETAIL
    if data is not None:
        raise Rejected(f"one file at a time: {file!r} or {data!r}", where="DATA")
    return file, None


def parse_mapping(given: list[str]) -> dict[str, str]:
    """`["customer=Client,date=Day"]` as a mapping. Raises Rejected for what is not role=column."""
    from operation_agent.kit.errors import Rejected

    mapping = {}
    for pair in (pair for one in given for pair in re.split(r",(?=\w+=)", one)):  # a column's name may have a comma
        role, equals, column = pair.partition("=")
        if not equals or not role.strip() or not column.strip():
            raise Rejected(f"{pair!r} is not ROLE=COLUMN, such as customer=Client", where="--map")
        mapping[role.strip()] = column.strip()
    return mapping


def _show(report: ImportReport) -> None:
    resumed = f", {report.resumed_from:,} of them by earlier runs" if report.resumed_from else ""
    print(f"{report.file_name}: {report.read:,} rows read{resumed}")
    print("columns: " + ", ".join(f"{role} = {column}" for role, column in report.mapping.items()))
    print(f"{report.accepted:,} accepted, {report.duplicates:,} known already, {report.rejected:,} refused")
    for one in report.rejections:
        print(f"  line {one.line}: {one.reason}")
    if report.rejected > len(report.rejections):
        print(f"  and {report.rejected - len(report.rejections):,} more; all are in the table import_rejections")
    if report.totals is not None:
        _show_totals(report.totals)


def _show_totals(totals: Totals) -> None:
    print("stored of Online Retail, in pounds:")
    for name, value in (
        ("invoices", f"{totals.invoices:,}"),
        ("  orders", f"{totals.orders:,}"),
        ("  cancellations", f"{totals.cancellations:,}"),
        ("customers", f"{totals.customers:,}"),
        ("lines", f"{totals.lines:,}"),
        ("  without a customer", f"{totals.guest_lines:,}"),
        ("  of cancellations", f"{totals.cancellation_lines:,}"),
        ("    whose order was found", f"{totals.cancellation_lines_matched:,}"),
        ("  of adjustments", f"{totals.adjustment_lines:,}"),
        ("sold", f"{Decimal(totals.sold):,}"),
        ("refunded", f"{Decimal(totals.refunded):,}"),
        ("adjusted", f"{Decimal(totals.adjusted):,}"),
        ("sum of quantity × price", f"{Decimal(totals.value):,}"),
    ):
        print(f"  {name:<28}{value:>16}")
