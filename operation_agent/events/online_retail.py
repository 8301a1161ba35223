"""UCI Online Retail as events: a year of invoices of a British wholesaler of gifts, 541,909 lines, in pounds.

https://archive.ics.uci.edu/dataset/352/online+retail (Chen 2015, CC BY 4.0), as .xlsx, .csv or .parquet. A row is a
line of an invoice; an invoice is one event, whose `products` are its lines with `unit_minor`: the exact price of one in
pence as decimal text, since some cost a tenth of one. What is what:

- an invoice of goods is an order, its lines of no price included; without a customer it is a guest's;
- an invoice whose number begins with C cancels: a refund of the customer's latest earlier invoice of that stock code
  of which enough is left, pieces and money; where there is none, a refund that stands under its own number;
- a line of goods written off (negative pieces, no price), an invoice without price and customer (found, damaged), and
  one whose number begins with another letter (bad debts) is an adjustment: a custom event that counts as no sale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from operation_agent.kit.errors import Rejected
from operation_agent.kit.money import MAXIMUM_MINOR
from operation_agent.store.shops import Shop

from . import catalogue, instants, online_retail_events
from .event import Event
from .online_retail_events import CURRENCY, NAME, PENCE, Invoice, Line
from .order_rows import Reading, read_identifier, read_instant
from .tabular import Fault, Table

ENCODINGS = ("utf-8-sig", "cp1252")
"""The CSV that goes round has its pound signs in Latin-1."""

_COLUMNS: dict[str, tuple[str, ...]] = {
    "invoice": ("invoiceno", "invoice"),
    "stock_code": ("stockcode",),
    "description": ("description",),
    "quantity": ("quantity",),
    "date": ("invoicedate",),
    "price": ("unitprice", "price"),
    "customer": ("customerid",),
    "country": ("country",),
}
_FILES = ("Online Retail.xlsx", "online_retail.parquet", "online_retail.xlsx", "online_retail.csv", "OnlineRetail.csv")
_OPTIONS = ("date_format", "sheet")
_FINEST = Decimal("0.000001")
_NO_VALUE = (list, dict, bytes)
_BEFORE_IT_WAS_READ = datetime.min.replace(tzinfo=UTC)


def find() -> Path:
    """The file in the working folder, under a name it goes by. Raises Rejected with where to get it."""
    for name in _FILES:
        if Path(name).is_file():
            return Path(name)
    raise Rejected(
        f"there is no {' or '.join(repr(name) for name in _FILES[:2])} here; download it from"
        " https://archive.ics.uci.edu/dataset/352/online+retail and name it: opagent import online-retail <file>",
        code="online_retail",
    )


def resolve_mapping(columns: Sequence[str], asked: Mapping[str, str]) -> dict[str, str]:
    """Role -> column, and which data this is. Raises Rejected for columns that are not this data's."""
    named = {"".join(filter(str.isalnum, name.casefold())): name for name in reversed(columns)}
    found = {"preset": NAME}
    for role, column in asked.items():
        if role not in _COLUMNS and role not in _OPTIONS:
            raise Rejected(
                f"{role!r} is nothing these rows say; choose from {', '.join([*_COLUMNS, *_OPTIONS])}", where=role
            )
        if role in _COLUMNS and column not in columns:
            raise Rejected(f"there is no column {column!r}", where=role)
        found[role] = column
    for role, names in _COLUMNS.items():
        guess = found.get(role) or next((named[name] for name in names if name in named), None)
        if guess is None:
            raise Rejected(
                f"this is not the Online Retail data: no column is called {names[0]}; a file of orders is imported by"
                " opagent import <file>",
                code="mapping",
                where=role,
            )
        found[role] = guess
    return dict(sorted(found.items()))


def check(shop: Shop) -> None:
    """Raises Rejected when the shop does not trade in pounds."""
    if shop.currency != CURRENCY:
        raise Rejected(
            f"these invoices are in {CURRENCY} and the shop trades in {shop.currency}; make one with"
            f" opagent shop create --currency {CURRENCY}",
            code="mixed_currency",
        )


Kind = Literal["sale", "cancellation", "adjustment"]


def _kind(invoice: str) -> Kind:
    if invoice[0] in "Cc":
        return "cancellation"
    return "sale" if invoice[0].isdigit() else "adjustment"


@dataclass(slots=True)
class _Bought:
    """What is left to cancel of one stock code of one invoice."""

    invoice: str
    at: datetime
    pieces: int = 0
    minor: Decimal = Decimal(0)


class Reader:
    """Reads the rows of one file in their order; an invoice is told with the last of its rows."""

    def __init__(self, shop: Shop, table: Table, mapping: Mapping[str, str], now: datetime):
        """`now` is the shop's time. Reads the file once, to learn how many rows each invoice has."""
        self._now = now
        self._places = {role: table.columns.index(mapping[role]) for role in _COLUMNS}
        self._rows_left, day_first = self._survey(table)
        self._open: dict[str, Invoice] = {}
        self._bought: dict[tuple[str, str], dict[str, _Bought]] = {}
        pattern = mapping.get("date_format") or ("%d/%m/%Y %H:%M" if day_first else "%m/%d/%Y %H:%M")
        zone = ZoneInfo(shop.time_zone)
        self._when = lru_cache(maxsize=100_000)(lambda value: _instant(value, zone, pattern))

    def note(self, line: int, values: Sequence[Any]) -> None:
        """A row that an earlier run has read already: it counts for what is open and for what is left to cancel."""
        self.read(line, values, _BEFORE_IT_WAS_READ)

    def read(self, line: int, values: Sequence[Any], received_at: datetime) -> Reading:
        """The events of the invoice that this row completes, and why the row itself is refused, if it is."""
        try:
            number = self._required(values, "invoice")
        except Rejected as error:
            return Reading([], error.detail)
        invoice = self._open.setdefault(number, Invoice(number))
        self._rows_left[number] -= 1
        refused = None
        try:
            self._add(invoice, values)
        except Rejected as error:
            refused = error.detail
        if self._rows_left[number] > 0:
            return Reading([], refused)
        del self._open[number]
        return Reading(self._events(invoice, received_at) if invoice.lines else [], refused)

    # -- rows -----------------------------------------------------------------------------------------------------

    def _survey(self, table: Table) -> tuple[Counter[str], bool]:
        """How many rows each invoice has, and whether dates in text begin with the day: then one is above 12."""
        rows: Counter[str] = Counter()
        day_first = False
        for _, values in table.rows():
            if isinstance(values, Fault):
                continue
            try:
                rows[self._required(values, "invoice")] += 1
            except Rejected:
                continue
            said = values[self._places["date"]]
            if not day_first and isinstance(said, str):
                first = said.partition("/")[0].strip()
                day_first = len(first) == 2 and first.isdigit() and int(first) > 12
        return rows, day_first

    def _value(self, values: Sequence[Any], role: str) -> Any:
        value = values[self._places[role]]
        if isinstance(value, _NO_VALUE):
            raise Rejected(f"the {role} is a {type(value).__name__}, not one value")
        return value

    def _required(self, values: Sequence[Any], role: str) -> str:
        found = _identifier(self._value(values, role), role)
        if found is None:
            raise Rejected(f"the {role} is empty")
        return found

    def _add(self, invoice: Invoice, values: Sequence[Any]) -> None:
        line = Line(
            self._required(values, "stock_code"),
            _text(self._value(values, "description")),
            _quantity(self._value(values, "quantity")),
            _price(self._value(values, "price")),
        )
        _check_signs(_kind(invoice.number), line)
        at, customer = self._date(values), _identifier(self._value(values, "customer"), "customer")
        if invoice.lines and customer != invoice.customer:
            raise Rejected(f"invoice {invoice.number} is of customer {invoice.customer}, and here of {customer}")
        invoice.customer, invoice.country = customer, _text(self._value(values, "country"))
        invoice.at = at if invoice.at is None else min(at, invoice.at)
        invoice.lines.append(line)

    def _date(self, values: Sequence[Any]) -> datetime:
        value = _stripped(self._value(values, "date"))
        if value is None:
            raise Rejected("the date is empty")
        return instants.settled(self._when(value), self._now, "the date")

    # -- invoices -------------------------------------------------------------------------------------------------

    def _events(self, invoice: Invoice, received_at: datetime) -> list[tuple[Event, int]]:
        kind = _kind(invoice.number)
        if kind == "cancellation":
            return self._refunds(invoice, received_at)
        if kind == "adjustment":
            return [online_retail_events.adjustment(invoice, "ledger.adjusted", invoice.lines, received_at)]
        sold = [line for line in invoice.lines if line.quantity > 0]
        if invoice.customer is None and not any(line.price for line in sold):
            sold = []
        rest = [line for line in invoice.lines if line.quantity < 0] if sold else invoice.lines
        found = []
        if sold:
            self._remember(invoice, sold)
            found.append(online_retail_events.order(invoice, sold, received_at))
        if rest:
            found.append(online_retail_events.adjustment(invoice, "stock.adjusted", rest, received_at))
        return found

    def _remember(self, invoice: Invoice, sold: Sequence[Line]) -> None:
        if invoice.customer is None or invoice.at is None:
            return
        for line in sold:
            of_code = self._bought.setdefault((invoice.customer, line.stock_code), {})
            bought = of_code.setdefault(invoice.number, _Bought(invoice.number, invoice.at))
            bought.pieces += line.quantity
            bought.minor += line.minor

    def _refunds(self, invoice: Invoice, received_at: datetime) -> list[tuple[Event, int]]:
        """One of each order that lines of this cancellation belong to."""
        by_order: dict[str, list[Line]] = {}
        for line in invoice.lines:
            by_order.setdefault(self._cancelled_order(invoice, line) or invoice.number, []).append(line)
        return [online_retail_events.refund(invoice, order, lines, received_at) for order, lines in by_order.items()]

    def _cancelled_order(self, invoice: Invoice, line: Line) -> str | None:
        if invoice.customer is None or invoice.at is None:
            return None
        pieces, minor = -line.quantity, -line.minor
        for bought in reversed(self._bought.get((invoice.customer, line.stock_code), {}).values()):
            if bought.at <= invoice.at and bought.pieces >= pieces and bought.minor >= minor:
                bought.pieces -= pieces
                bought.minor -= minor
                return bought.invoice
        return None


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise Rejected("holds a NUL character, which no database text may")
        value = value.strip()
    return None if value == "" else value


# A value stands on twenty rows, on average: each is looked at once. Typed, since 1, 1.0 and True are one key otherwise.


@lru_cache(maxsize=100_000, typed=True)
def _identifier(value: Any, role: str) -> str | None:
    return read_identifier(_stripped(value), role)


@lru_cache(maxsize=100_000, typed=True)
def _text(value: Any) -> str | None:
    value = _stripped(value)
    return None if value is None else str(value)[:200]


def _instant(value: Any, zone: ZoneInfo, pattern: str) -> datetime:
    return read_instant(value, zone, pattern if isinstance(value, str) and "/" in value else None)


@lru_cache(maxsize=100_000, typed=True)
def _quantity(value: Any) -> int:
    value = _stripped(value)
    try:
        pieces = int(value) if not isinstance(value, bool | float) or value == int(value) else 0
    except (TypeError, ValueError, OverflowError):
        pieces = 0
    if not 1 <= abs(pieces) <= catalogue.MOST_PIECES:
        raise Rejected(f"the quantity {str(value)[:40]!r} is not a whole number of pieces other than 0")
    return pieces


@lru_cache(maxsize=100_000, typed=True)
def _price(value: Any) -> Decimal:
    """Pounds. A float is what its shortest writing says: 2.55, and not the nearest binary fraction."""
    value = _stripped(value)
    try:
        price = Decimal(str(value))
        if not price.is_finite() or abs(price.adjusted()) > 20 or price * PENCE % _FINEST:
            raise InvalidOperation
    except InvalidOperation:
        raise Rejected(f"the price {str(value)[:40]!r} is not an amount of money") from None
    if abs(price * PENCE) > MAXIMUM_MINOR:
        raise Rejected(f"the price {str(value)[:40]!r} is too large to be one")
    return price


def _check_signs(kind: Kind, line: Line) -> None:
    if kind == "adjustment":
        return
    if line.price < 0:
        raise Rejected(f"the price {line.price} is negative, on an invoice that is no adjustment")
    if kind == "cancellation" and line.quantity > 0:
        raise Rejected(f"the quantity {line.quantity} is positive, on a cancellation")
    if kind == "sale" and line.quantity < 0 and line.price > 0:
        raise Rejected(f"the quantity {line.quantity} is negative at a price, on an invoice that is no cancellation")
