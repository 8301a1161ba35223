"""Rows of orders as events: columns guessed in two languages, and a reason for every row that is not an order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from operation_agent.events.order_rows import Reader, resolve_mapping
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop

pytestmark = pytest.mark.unit

NOW = datetime(2026, 6, 1, tzinfo=UTC)
COLUMNS = ("customer", "date", "amount", "quantity", "order", "discount", "email", "phone", "currency")


def shop() -> Shop:
    settings = {"country": "CN"}
    return Shop(
        new_id(), "s", "S", "CNY", "Asia/Shanghai", True, timedelta(0), Decimal("0.4"), "seed", settings
    )  # fmt: skip


def reader(*roles: str, **options: str) -> Reader:
    mapping = {role: role for role in roles or ("customer", "date", "amount")} | options
    return Reader(shop(), COLUMNS, mapping, "f" * 64, NOW)


def row(**values) -> list:
    said = {"customer": "7", "date": "2026-01-02", "amount": "10"} | values
    return [said.get(name, "") for name in COLUMNS]


def order(**values):
    made = reader(*COLUMNS) if "order" in values else reader(*(set(COLUMNS) - {"order"}))
    return made.events(3, row(**values), NOW)[0]


def test_columns_are_guessed_from_english_names():
    found = resolve_mapping(["CustomerID", "InvoiceDate", "Order Total", "Qty", "E-mail"], {})
    assert found == {
        "customer": "CustomerID", "date": "InvoiceDate", "amount": "Order Total", "quantity": "Qty", "email": "E-mail"
    }  # fmt: skip


def test_columns_are_guessed_from_chinese_names():
    found = resolve_mapping(["订单号", "会员编号", "下单时间", "实付金额", "件数", "优惠金额", "手机号"], {})
    assert found == {
        "order": "订单号", "customer": "会员编号", "date": "下单时间", "amount": "实付金额", "quantity": "件数",
        "discount": "优惠金额", "phone": "手机号",
    }  # fmt: skip


def test_what_is_asked_for_wins_over_a_guess():
    found = resolve_mapping(["customer", "date", "total", "net"], {"amount": "net"})
    assert found == {"customer": "customer", "date": "date", "amount": "net"}


@pytest.mark.parametrize(
    ("columns", "asked", "where"),
    [
        (["customer", "amount"], {}, "date"),
        (["customer", "date"], {}, "amount"),
        (["date", "amount"], {}, "customer"),
        (["customer", "date", "amount"], {"amount": "sum"}, "amount"),
        (["customer", "date", "amount"], {"colour": "date"}, "colour"),
    ],
)
def test_a_mapping_that_cannot_be_says_what_is_missing(columns, asked, where):
    with pytest.raises(Rejected) as caught:
        resolve_mapping(columns, asked)
    assert caught.value.where == where


def test_an_order_in_the_normal_form():
    made = order(amount="¥1,234.50", quantity="2", order="A-1", discount="5")
    assert made.type == "order.paid"
    assert made.identity == {"external": "7"}
    assert made.occurred_at == datetime(2026, 1, 1, 16, tzinfo=UTC)  # midnight in Shanghai
    assert made.properties == {
        "order_id": "A-1", "total_minor": 123450, "discount_minor": 500, "currency": "CNY", "quantity": 2,
        "discount_codes": [], "products": [],
    }  # fmt: skip


def test_without_an_order_id_the_file_and_the_line_are_one():
    assert order().properties["order_id"] == "ffffffffffff-3"
    assert order().source_id == "f" * 64 + ":3"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("20260102", datetime(2026, 1, 1, 16, tzinfo=UTC)),
        (20260102, datetime(2026, 1, 1, 16, tzinfo=UTC)),
        ("2026/1/2 9:30", datetime(2026, 1, 2, 1, 30, tzinfo=UTC)),
        ("2026年1月2日", datetime(2026, 1, 1, 16, tzinfo=UTC)),
        ("2026-01-02T00:00:00Z", datetime(2026, 1, 2, tzinfo=UTC)),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
        (datetime(2026, 1, 2), datetime(2026, 1, 1, 16, tzinfo=UTC)),
    ],
)
def test_dates_of_many_hands(said, expected):
    assert order(date=said).occurred_at == expected


def test_an_ambiguous_date_needs_its_format():
    with pytest.raises(Rejected, match="not a date we can be sure of.*date_format"):
        order(date="01/02/2026")
    made = reader("customer", "date", "amount", date_format="%d/%m/%Y").events(2, row(date="03/02/2026"), NOW)
    assert made[0].occurred_at == datetime(2026, 2, 2, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"date": ""}, "the date is empty"),
        ({"date": "yesterday"}, "not a date"),
        ({"date": "1905-01-01"}, "before 1990"),
        ({"date": "2026-07-01"}, "in the future"),
        ({"date": "9999-12-31T23:59:59-12:00"}, "outside the calendar"),
        ({"date": float("nan")}, "not a date"),
        ({"amount": ""}, "the amount is empty"),
        ({"amount": "-1"}, "negative"),
        ({"amount": "ten"}, "not an amount"),
        ({"amount": float("nan")}, "not an amount"),
        ({"amount": "1e30"}, "amount of money"),
        ({"amount": [1]}, "is a list"),
        ({"quantity": "0"}, "whole number"),
        ({"quantity": "1.5"}, "whole number"),
        ({"currency": "USD"}, "the shop's is CNY"),
        ({"discount": "-2"}, "negative"),
        ({"customer": "x" * 600}, "longer than"),
        ({"customer": "a\0b"}, "NUL"),
        ({"order": ""}, "order id is empty"),
    ],
)
def test_every_bad_row_has_its_reason(values, reason):
    with pytest.raises(Rejected, match=reason):
        order(**values)


def test_nothing_paid_is_an_order_too():
    assert order(amount="0.00").properties["total_minor"] == 0


def test_an_order_on_two_lines_is_refused_with_the_first_line():
    made = reader(*COLUMNS)
    made.events(2, row(order="A"), NOW)
    with pytest.raises(Rejected, match="order A stands on line 2 already"):
        made.events(9, row(order="A"), NOW)


def test_a_row_without_anybody_is_a_guests():
    assert order(customer="").identity == {}


def test_a_number_as_customer_is_an_id():
    assert order(customer=17850.0).identity == {"external": "17850"}


def test_contact_details_identify_and_are_said_once():
    made = reader("customer", "date", "amount", "email", "phone")
    values = row(email="Ann@X.com ", phone="138 0013 8000")
    first, second = made.events(2, values, NOW), made.events(3, values, NOW)
    assert first[0].identity == {"external": "7", "email": "ann@x.com", "phone": "+8613800138000"}
    assert first[1].type == "customer.identified"
    assert first[1].properties == {"traits": {"email": "ann@x.com", "phone": "+8613800138000"}}
    assert first[1].source_id == second[1].source_id
    assert first[0].source_id != second[0].source_id


def test_what_is_no_address_stays_a_trait_and_identifies_nobody():
    made = reader("customer", "date", "amount", "email").events(2, row(email="none"), NOW)
    assert made[0].identity == {"external": "7"}
    assert made[1].properties == {"traits": {"email": "none"}}
