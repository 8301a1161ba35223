"""Online Retail: what an invoice, a cancellation and an adjustment say, and which rows are refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.events import online_retail
from operation_agent.events.event import PAST, Event
from operation_agent.events.tabular import Fault, Table, open_table
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.shops import Shop

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
DAY = datetime(2011, 1, 3, 10, 30)


def shop(currency: str = "GBP") -> Shop:
    return Shop(new_id(), "s", "S", currency, "Europe/London", True, timedelta(0), Decimal("0.4"), "seed", {})


def row(
    invoice: object, code: str = "A", quantity: Any = 1, price: Any = 1.0, *, customer: Any = 17850, day: int = 0
) -> list:
    return [invoice, code, f"THING {code}", quantity, DAY + timedelta(days=day), price, customer, "United Kingdom"]


def table(rows: Sequence[Any]) -> Table:
    return Table(COLUMNS, lambda: iter(list(enumerate(rows, 1))), len(rows), b"\0" * 32)


def reader(rows: Sequence[Any]) -> online_retail.Reader:
    return online_retail.Reader(shop(), table(rows), online_retail.resolve_mapping(COLUMNS, {}), NOW)


def read(*rows: Any) -> tuple[list[Event], list[str]]:
    made, events, refused = reader(rows), [], []
    for line, values in enumerate(rows, 1):
        reading = made.read(line, values, NOW)
        events += [event for event, _ in reading.events]
        refused += [reading.refused] if reading.refused else []
    return events, refused


def said(event: Event) -> tuple:
    return (
        event.type,
        event.name,
        event.properties.get("order_id"),
        [p["product_id"] for p in event.properties["products"]],
    )


def test_an_invoice_is_one_order_with_its_lines():
    (order,), refused = read(row(536365, "85123A", 6, 2.55), row("536365", "71053", 2, "3.39", customer=17850.0))
    assert refused == []
    assert (order.type, order.source_id, order.identity) == (
        "order.paid",
        "online-retail:invoice:536365",
        {"external": "17850"},
    )
    assert order.occurred_at == datetime(2011, 1, 3, 10, 30, tzinfo=UTC)
    assert order.context == {PAST: True}
    assert order.properties == {
        "invoice": "536365", "order_id": "536365", "currency": "GBP", "country": "United Kingdom", "total_minor": 2208,
        "discount_minor": 0, "quantity": 8, "discount_codes": [],
        "products": [
            {"line_id": "1", "product_id": "85123A", "sku": "85123A", "title": "THING 85123A", "quantity": 6,
             "price_minor": 255, "unit_minor": "255"},
            {"line_id": "2", "product_id": "71053", "sku": "71053", "title": "THING 71053", "quantity": 2,
             "price_minor": 339, "unit_minor": "339"},
        ],
    }  # fmt: skip


def test_prices_of_fractions_of_a_penny_stay_exact():
    (order,), _ = read(row(1, price=0.001, quantity=7), row(1, price=0.1 + 0.2, quantity=1), row(1, price=1e-05))
    assert [line["unit_minor"] for line in order.properties["products"]] == [
        "0.1",
        "0.001",
    ]  # 0.30000000000000004: refused
    assert (order.properties["total_minor"], order.properties["products"][0]["price_minor"]) == (1, 0)


def test_rows_of_one_invoice_that_stand_apart_are_one_order():
    events, _ = read(row(1, "A", day=1), row(2, "B"), row(1, "C", day=0))
    assert [said(event) for event in events] == [
        ("order.paid", None, "2", ["B"]),
        ("order.paid", None, "1", ["A", "C"]),
    ]
    assert events[1].occurred_at == datetime(2011, 1, 3, 10, 30, tzinfo=UTC)


def test_a_cancellation_is_a_refund_of_the_latest_earlier_order_with_enough_left():
    rows = [
        row(1, "A", 10, 2.0), row(2, "A", 5, 2.0, day=1), row(3, "A", 9, 2.0, customer=1),
        row("C4", "A", -5, 2.0, day=2), row("C5", "A", -3, 2.0, day=2), row("C6", "A", -8, 2.0, day=2),
    ]  # fmt: skip
    events, _ = read(*rows)
    refunds = [event for event in events if event.type == "order.refunded"]
    assert [(event.properties["order_id"], event.properties["refund_id"]) for event in refunds] == [
        ("2", "C4"), ("1", "C5"), ("C6", "C6"),  # of the first 7 are left: 8 stand on their own
    ]  # fmt: skip
    assert [event.properties["amount_minor"] for event in refunds] == [1000, 600, 1600]
    assert refunds[0].properties["products"][0]["quantity"] == 5
    assert refunds[0].source_id == "online-retail:refund:C4:2"


def test_lines_of_one_cancellation_go_to_the_orders_they_belong_to():
    rows = [
        row(1, "A", 1, 2.0),
        row(2, "B", 1, 3.0),
        row("C3", "A", -1, 2.0),
        row("C3", "B", -1, 3.0),
        row("C3", "D", -1, 9),
    ]
    events, _ = read(*rows)
    assert [said(event)[2:] for event in events[2:]] == [("1", ["A"]), ("2", ["B"]), ("C3", ["D"])]


@pytest.mark.parametrize(
    "cancellation",
    [
        row("C2", "A", -1, 2.0, customer=99),  # somebody else
        row("C2", "A", -1, 2.0, customer=None),  # a guest
        row("C2", "B", -1, 2.0),  # something else
        row("C2", "A", -6, 2.0),  # more than was bought
        row("C2", "A", -1, 10.01),  # for more money than was paid
        row("C2", "A", -1, 2.0, day=-1),  # before it was bought
    ],
)
def test_a_cancellation_of_nothing_we_know_stands_under_its_own_number(cancellation: list):
    events, refused = read(row(1, "A", 5, 2.0), cancellation)
    assert (events[1].properties["order_id"], refused) == ("C2", [])


def test_a_guests_invoice_is_an_order_without_an_identity():
    (order,), _ = read(row(1, customer=None), row(1, "B", price=0, customer=float("nan")))
    assert (order.identity, order.properties["quantity"]) == ({}, 2)


def test_what_is_no_sale_is_an_adjustment_and_counts_as_no_order():
    events, refused = read(
        row(1, "A", -10, 0, customer=None),  # written off
        row(2, "A", 3, 0, customer=None),  # found
        row("A563185", "B", 1, 11062.06, customer=None),
        row("A563186", "B", 1, -11062.06, customer=None),
        row(3, "A", 16, 0),  # given to a customer
        row(4, "A", 1, 5), row(4, "B", -2, 0),  # sold, and written off besides
    )  # fmt: skip
    assert refused == []
    assert [said(event)[:2] for event in events] == [
        ("custom", "stock.adjusted"), ("custom", "stock.adjusted"), ("custom", "ledger.adjusted"),
        ("custom", "ledger.adjusted"), ("order.paid", None), ("order.paid", None), ("custom", "stock.adjusted"),
    ]  # fmt: skip
    assert [event.properties["products"][0]["quantity"] for event in events] == [-10, 3, 1, 1, 16, 1, -2]
    assert events[3].properties["products"][0]["unit_minor"] == "-1106206"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(None), "the invoice is empty"),
        (row(1, ""), "the stock_code is empty"),
        (row(1, quantity=0), "quantity '0'"),
        (row(1, quantity=1.5), "quantity '1.5'"),
        (row(1, quantity=None), "quantity 'None'"),
        (row(1, quantity=2_000_000), "quantity '2000000'"),
        (row(1, price="a"), "price 'a'"),
        (row(1, price=None), "price 'None'"),
        (row(1, price=float("inf")), "price 'inf'"),
        (row(1, price="1e30"), "price '1e30'"),
        (row(1, price=-1), "is negative, on an invoice that is no adjustment"),
        (row(1, quantity=-1), "negative at a price"),
        (row("C1"), "positive, on a cancellation"),
        (row(1, "A\0"), "NUL"),
        (row(1, day=6000), "ahead of the shop's clock"),
        (row(1, day=-9000), "before 1990"),
        ([1, "A", None, 1, "soon", 1, 1, None], "'soon' is not a date"),
        ([1, "A", None, 1, None, 1, 1, None], "the date is empty"),
        ([1, ["A"], None, 1, DAY, 1, 1, None], "stock_code is a list"),
    ],
)
def test_a_row_that_cannot_be_is_refused_and_the_rest_of_its_invoice_is_told(bad: list, reason: str):
    events, (refused,) = read(row(bad[0] or 1, "GOOD", -1 if bad[0] == "C1" else 1), bad)
    assert reason in refused
    assert [said(event)[3] for event in events] == [["GOOD"]]


def test_an_invoice_of_two_customers_keeps_the_first():
    (order,), (refused,) = read(row(1, customer=1), row(1, "B", customer=2))
    assert (order.identity, len(order.properties["products"])) == ({"external": "1"}, 1)
    assert "of customer 1, and here of 2" in refused


def test_rows_that_are_none_are_left_to_the_import():
    rows = [row(1), Fault("bad"), row(1, "B")]
    made = reader(rows)
    assert made.read(1, rows[0], NOW).events == []
    assert len(made.read(3, rows[2], NOW).events) == 1


INVOICES = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", "C4", "C5", "A6", "7"]),
        st.sampled_from(["X", "Y"]),
        st.integers(-6, 6),
        st.sampled_from(["0", "0.001", "1.25", "3.99", "-2"]),
        st.sampled_from([None, 1, 2]),
    ),
    max_size=25,
)


def drawn(invoices: list[tuple[str, str, int, str, int | None]]) -> list[list[Any]]:
    return [row(i, code, pieces, price, customer=who) for i, code, pieces, price, who in invoices]


def facts(event: Event) -> tuple:
    return (event.source_id, event.type, event.name, event.occurred_at, event.identity, event.properties)


@given(INVOICES)
def test_every_row_is_in_exactly_one_event_or_refused_and_the_money_adds_up(invoices):
    rows, made = drawn(invoices), reader(drawn(invoices))
    counted, refused, value, kept = 0, 0, Decimal(0), Decimal(0)
    ids = []
    for line, values in enumerate(rows, 1):
        reading = made.read(line, values, NOW)
        refused += reading.refused is not None
        kept += 0 if reading.refused else values[3] * Decimal(values[5])
        for event, stands_for in reading.events:
            ids.append(event.source_id)
            counted += stands_for
            sign = -1 if event.type == "order.refunded" else 1
            value += sum(sign * p["quantity"] * Decimal(p["unit_minor"]) / 100 for p in event.properties["products"])
    assert counted + refused == len(rows)
    assert value == kept
    assert len(ids) == len(set(ids))


@given(INVOICES, st.integers(0, 25))
def test_going_on_after_any_row_tells_what_one_run_tells(invoices, done):
    rows = drawn(invoices)
    whole, first, second = reader(rows), reader(rows), reader(rows)
    told, again = [], []
    for line, values in enumerate(rows, 1):
        told += [facts(event) for event, _ in whole.read(line, values, NOW).events]
        if line <= done:
            again += [facts(event) for event, _ in first.read(line, values, NOW).events]
            second.note(line, values)
        else:
            again += [facts(event) for event, _ in second.read(line, values, NOW).events]
    assert again == told


@given(INVOICES)
def test_never_more_is_refunded_than_was_bought(invoices):
    events, _ = read(*drawn(invoices))
    bought = {
        event.properties["order_id"]: event.properties["total_minor"] for event in events if event.type == "order.paid"
    }
    for event in events:
        if event.type == "order.refunded" and event.properties["order_id"] != event.properties["invoice"]:
            order = event.properties["order_id"]
            bought[order] -= event.properties["amount_minor"]
            assert bought[order] >= -1  # pence: each refund is rounded by itself


HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def written(tmp_path: Path, body: str, encoding: str = "utf-8") -> list[Event]:
    path = tmp_path / "data.csv"
    path.write_bytes((HEADER + body).encode(encoding))
    opened = open_table(path, encodings=online_retail.ENCODINGS)
    made = online_retail.Reader(shop(), opened, online_retail.resolve_mapping(opened.columns, {}), NOW)
    readings = [made.read(line, values, NOW) for line, values in opened.rows() if not isinstance(values, Fault)]
    assert [one.refused for one in readings if one.refused] == []
    return [event for one in readings for event, _ in one.events]


def test_the_csv_that_goes_round_is_read_with_its_pound_signs_and_american_dates(tmp_path):
    (order,) = written(tmp_path, "536365,85123A,BOX £5 SET,6,12/1/2010 8:26,2.55,17850,United Kingdom\n", "latin-1")
    assert order.properties["products"][0]["title"] == "BOX £5 SET"
    assert order.occurred_at == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def test_dates_that_begin_with_the_day_somewhere_begin_with_it_everywhere(tmp_path):
    body = (
        "1,A,x,1,01/12/2010 08:26,2.55,1,UK\n2,A,x,1,13/12/2010 08:26,2.55,1,UK\n3,A,x,1,2010-12-14 09:00:00,1,1,UK\n"
    )
    assert [event.occurred_at.date().isoformat() for event in written(tmp_path, body)] == [
        "2010-12-01", "2010-12-13", "2010-12-14",
    ]  # fmt: skip


def test_another_file_is_not_taken_for_this_data():
    with pytest.raises(Rejected, match="no column is called invoiceno"):
        online_retail.resolve_mapping(["customer", "date", "amount"], {})
    with pytest.raises(Rejected, match="there is no column 'x'"):
        online_retail.resolve_mapping(COLUMNS, {"price": "x"})
    with pytest.raises(Rejected, match="is nothing these rows say"):
        online_retail.resolve_mapping(COLUMNS, {"amount": "UnitPrice"})
    assert online_retail.resolve_mapping(
        ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country"], {}
    )["customer"] == "Customer ID"  # fmt: skip


def test_a_shop_of_another_currency_is_told_to_trade_in_pounds():
    with pytest.raises(Rejected, match="--currency GBP"):
        online_retail.check(shop("USD"))


def test_without_the_file_it_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Rejected, match="archive.ics.uci.edu"):
        online_retail.find()
    (tmp_path / "Online Retail.xlsx").touch()
    assert online_retail.find() == Path("Online Retail.xlsx")
