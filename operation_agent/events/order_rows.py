"""A row of a file as events: which column is what, and what a row of orders says.

One row is one order. Its customer is an external id, an e-mail address or a phone number; a row without any is a
guest's order. A date without a time zone is the shop's local time, midnight when it has no time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.kit.money import to_minor
from operation_agent.store.shops import Shop

from . import catalogue, instants
from .event import Event
from .segment import email_identity, phone_identity

SOURCE = "import"

_GUESSES: dict[str, tuple[str, ...]] = {
    "customer": (
        "customer_id", "customerid", "customer", "user_id", "userid", "client_id", "member_id", "buyer_id",
        "客户id", "客户编号", "客户", "会员id", "会员编号", "会员号", "会员",
        "用户id", "用户编号", "用户", "顾客", "买家id", "买家",
    ),
    "date": (
        "date", "order_date", "orderdate", "ordered_at", "paid_at", "created_at", "invoicedate", "invoice_date",
        "purchase_date", "datetime", "timestamp", "日期", "下单时间", "下单日期", "订单日期",
        "订单时间", "付款时间", "支付时间",
        "订单创建时间", "时间",
    ),
    "amount": (
        "amount", "total", "order_total", "total_price", "total_amount", "paid", "revenue", "dollar_value", "sales",
        "实付金额", "实付款", "支付金额", "付款金额", "订单金额", "总金额", "金额",
    ),
    "quantity": ("quantity", "qty", "number_of_cds", "items", "pieces", "商品数量", "购买数量", "数量", "件数"),
    "currency": ("currency", "币种", "货币"),
    "order": ("order_id", "orderid", "order_no", "order_number", "order", "invoice", "invoiceno", "invoice_no",
              "订单号", "订单编号", "订单id", "单号"),
    "discount": ("discount", "discount_amount", "discounts", "优惠金额", "折扣金额", "优惠", "折扣"),
    "email": ("email", "e_mail", "email_address", "mail", "邮箱", "电子邮箱", "电子邮件"),
    "phone": ("phone", "phone_number", "mobile", "tel", "手机号", "手机号码", "手机", "电话", "联系电话"),
}  # fmt: skip
"""Role -> names it goes by, lower case with _ for spaces, the surest first."""

OPTIONS = ("date_format", "sheet")
"""What a mapping may say besides columns: strptime's format of the dates, and the sheet of an .xlsx."""


def resolve_mapping(columns: Sequence[str], asked: Mapping[str, str]) -> dict[str, str]:
    """Role -> column: as asked, and guessed from the names for the rest. Raises Rejected with what is missing."""
    for role, column in asked.items():
        if role not in _GUESSES and role not in OPTIONS:
            raise Rejected(
                f"{role!r} is nothing a row can say; choose from {', '.join([*_GUESSES, *OPTIONS])}", where=role
            )
        if role in _GUESSES and column not in columns:
            raise Rejected(f"there is no column {column!r}; the file has {_listed(columns)}", where=role)
    named = {re.sub(r"[\s\-.]+", "_", name.strip().casefold()): name for name in reversed(columns) if name}
    taken = set(asked.values())
    found = dict(asked)
    for role, names in _GUESSES.items():
        guess = next((named[name] for name in names if name in named and named[name] not in taken), None)
        if role not in found and guess is not None:
            found[role] = guess
            taken.add(guess)
    _require(found, columns)
    return dict(sorted(found.items()))


def _require(found: Mapping[str, str], columns: Sequence[str]) -> None:
    missing = [role for role in ("date", "amount") if role not in found]
    if not {"customer", "email", "phone"} & set(found):
        missing.append("customer")
    if missing:
        example = ",".join(f"{role}=<column>" for role in missing)
        raise Rejected(
            f"no column was found for {' and '.join(missing)}; say which with --map {example}."
            f" The file has {_listed(columns)}",
            code="mapping",
            where=missing[0],
        )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(repr(name[:60]) for name in columns[:30])


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row tells: events, each with how many rows of the file it stands for (0: it comes with another), and why
    the row itself is refused. A row may wait for others."""

    events: Sequence[tuple[Event, int]]
    refused: str | None = None


@dataclass(slots=True)
class Reader:
    """Reads rows of one file under one mapping. `now` is the shop's time; `file_id` tells this file from others."""

    shop: Shop
    columns: Sequence[str]
    mapping: Mapping[str, str]
    file_id: str
    now: datetime
    _orders: dict[str, int] = field(default_factory=dict, init=False)
    _places: dict[str, int] = field(init=False)
    _when: Callable[[Any], datetime] = field(init=False)

    def __post_init__(self) -> None:
        self._places = {role: self.columns.index(name) for role, name in self.mapping.items() if role in _GUESSES}
        zone, pattern = ZoneInfo(self.shop.time_zone), self.mapping.get("date_format")
        self._when = lru_cache(maxsize=100_000)(lambda value: read_instant(value, zone, pattern))

    def note(self, line: int, values: Sequence[Any]) -> None:
        """Remember the order of a row that an earlier run has read already."""
        order = read_identifier(self._value(values, "order"), "order")
        if order is not None:
            self._orders.setdefault(order, line)

    def read(self, line: int, values: Sequence[Any], received_at: datetime) -> Reading:
        """`events`, or why there are none."""
        try:
            order, *others = self.events(line, values, received_at)
        except Rejected as error:
            return Reading([], error.detail)
        return Reading([(order, 1), *((other, 0) for other in others)])

    def events(self, line: int, values: Sequence[Any], received_at: datetime) -> list[Event]:
        """The order, and who its customer is when the row says more than an id. Raises Rejected with the reason."""
        for value in values:
            if isinstance(value, str) and "\0" in value:
                raise Rejected("holds a NUL character, which no database text may")
        order = self._order_id(line, values)
        at = self._date(values)
        identity, traits = self._customer(values)
        source_id = f"{self.file_id}:{line}" if "order" not in self._places else f"order:{order}"
        properties = self._order(order, values)
        made = Event(new_id(), SOURCE, source_id, "order.paid", at, received_at, identity, properties)
        return [made, self._identified(at, received_at, identity, traits)] if traits else [made]

    def _value(self, values: Sequence[Any], role: str) -> Any:
        place = self._places.get(role)
        value = values[place] if place is not None else None
        if isinstance(value, str):
            value = value.strip()
        elif isinstance(value, list | dict | bytes):
            raise Rejected(f"the {role} is a {type(value).__name__}, not one value")
        return None if value == "" else value

    def _order_id(self, line: int, values: Sequence[Any]) -> str:
        if "order" not in self._places:
            return f"{self.file_id[:12]}-{line}"
        order = read_identifier(self._value(values, "order"), "order")
        if order is None:
            raise Rejected("the order id is empty")
        first = self._orders.setdefault(order, line)
        if first != line:
            raise Rejected(
                f"order {order} stands on line {first} already; one row is one order: add up its lines first"
            )
        return order

    def _date(self, values: Sequence[Any]) -> datetime:
        value = self._value(values, "date")
        if value is None:
            raise Rejected("the date is empty")
        at = self._when(value)
        if at < instants.EARLIEST:
            raise Rejected(f"the date {value} is before 1990")
        if at > self.now + instants.FURTHEST_AHEAD:
            raise Rejected(f"the date {value} is in the future of the shop ({self.now:%Y-%m-%d %H:%M} UTC)")
        return min(at, self.now)

    def _customer(self, values: Sequence[Any]) -> tuple[dict[str, str], dict[str, str]]:
        external = read_identifier(self._value(values, "customer"), "customer")
        identity = {"external": external} if external else {}
        traits = {}
        for kind, read in (("email", email_identity), ("phone", self._phone)):
            said = read_identifier(self._value(values, kind), kind)
            if said:
                known = read(said)
                traits[kind] = known or said
                if known:
                    identity[kind] = known
        return identity, traits if identity else {}

    def _phone(self, value: str) -> str | None:
        return phone_identity(value, self.shop.settings.get("country"))

    def _order(self, order: str, values: Sequence[Any]) -> dict[str, Any]:
        amount, currency = self._value(values, "amount"), self._value(values, "currency")
        if amount is None:
            raise Rejected("the amount is empty")
        if currency is not None and str(currency).upper() != self.shop.currency:
            raise Rejected(f"the currency is {currency} and the shop's is {self.shop.currency}")
        discount = self._value(values, "discount")
        return {
            "order_id": order,
            "total_minor": _money(amount, self.shop.currency, "amount"),
            "discount_minor": 0 if discount is None else _money(discount, self.shop.currency, "discount"),
            "currency": self.shop.currency,
            "quantity": catalogue.quantity(self._value(values, "quantity"), "the quantity"),
            "discount_codes": [],
            "products": [],
        }

    def _identified(
        self, at: datetime, received_at: datetime, identity: dict[str, str], traits: dict[str, str]
    ) -> Event:
        """Said once for each different saying, whatever the number of its rows: the id is of its content."""
        said = digest_id(*(f"{kind}={value}" for kind, value in sorted({**traits, **identity}.items())))
        return Event(
            new_id(), SOURCE, f"customer:{said}", "customer.identified", at, received_at, identity, {"traits": traits}
        )


def read_identifier(value: Any, role: str) -> str | None:
    """An id of a file as text, None when it is empty; spreadsheets and Parquet keep them as numbers, often 17850.0."""
    if isinstance(value, float):
        if value != value:
            return None
        value = int(value) if value.is_integer() else str(value)
    if value is not None and not isinstance(value, str | int):
        value = str(value)
    return catalogue.identifier(value, f"the {role}")


@lru_cache(maxsize=100_000, typed=True)
def _money(value: Any, currency: str, role: str) -> int:
    said = value
    if isinstance(said, str):
        said = said.strip().lstrip("¥￥$€£").strip()
        if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", said):
            said = said.replace(",", "")
    minor = to_minor(said, currency)
    if minor < 0:
        raise Rejected(f"the {role} {value} is negative; a refund is not a row of orders")
    return minor


_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_SPELLED = re.compile(r"(\d{4})[/.年-](\d{1,2})[/.月-](\d{1,2})日?(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")


def read_instant(value: Any, zone: ZoneInfo, pattern: str | None) -> datetime:
    """A date of a file in UTC; `pattern` is strptime's, `zone` that of a date without one. Raises Rejected."""
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime.combine(value, time())
    else:
        found = _parsed(str(value), pattern)
    try:
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise Rejected(f"the date {value} is outside the calendar") from None


def _parsed(text: str, pattern: str | None) -> datetime:
    try:
        if pattern is not None:
            return datetime.strptime(text, pattern)  # noqa: DTZ007 - the zone is the shop's, unless the format has one
        match = _COMPACT.fullmatch(text) or _SPELLED.fullmatch(text)
        if match:
            return datetime(*(int(piece) for piece in match.groups(default="0")))  # type: ignore[arg-type] # noqa: DTZ001
        return datetime.fromisoformat(text)
    except ValueError:
        raise Rejected(
            f"{text[:40]!r} is not a date we can be sure of; write 2026-01-31 or 2026-01-31 18:05, or give the format"
            " with --map date_format=%d/%m/%Y"
        ) from None
