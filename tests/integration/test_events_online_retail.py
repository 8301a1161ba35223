"""UCI Online Retail in full on a real PostgreSQL: the published totals out of the rows that are stored."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from operation_agent.customers import history, identity
from operation_agent.events import importing, intake, queue
from operation_agent.events.importing import ONLINE_RETAIL, ImportReport, import_file
from operation_agent.events.online_retail_totals import Totals
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[3] / "shared" / "data" / "online_retail.parquet"
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")


def make_shop(engine: Engine, currency: str = "GBP") -> Shop:
    return create_shop(
        engine, slug=f"s-{new_id().hex[-12:]}", name="Gifts", currency=currency, time_zone="Europe/London",
        sandbox=True, seed="test",
    )  # fmt: skip


@pytest.fixture
def shop(engine: Engine) -> Shop:
    return make_shop(engine)


def one(engine: Engine, shop_id: UUID, sql: str) -> Any:
    with for_shop(engine, shop_id) as session:
        return session.execute(text(sql)).one()


def process(engine: Engine, shop: Shop) -> None:
    """What the workers do with an import, less the decisions that nothing here asks for."""
    for partition in range(intake.PARTITIONS):
        while True:
            with for_shop(engine, shop.id) as session:
                claimed = queue.claim(session, shop.id, partition, 500)
                if not claimed:
                    break
                events = [queued.event for queued in claimed]
                history.apply(session, shop, events, identity.resolve(session, shop, events))
                queue.done(session, shop.id, partition, [queued.seq for queued in claimed])


@pytest.fixture(scope="module")
def imported(engine: Engine) -> tuple[Shop, ImportReport]:
    if not DATA.exists():
        pytest.skip(f"Online Retail is not at {DATA}")
    shop = make_shop(engine)
    return shop, import_file(engine, shop, DATA, preset=ONLINE_RETAIL)


def value_of(path: Path) -> dict[str, Decimal]:
    """Σ quantity × price in pounds by the kind of invoice, straight from the file and exactly."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path, columns=["InvoiceNo", "Quantity", "UnitPrice"])
    sums = {"C": Decimal(0), "A": Decimal(0), "": Decimal(0)}
    for invoice, quantity, price in zip(*(column.to_pylist() for column in table.columns), strict=True):
        sums[invoice[0] if invoice[0] in "CA" else ""] += quantity * Decimal(repr(price))
    return sums


def test_the_published_totals_are_those_of_the_stored_events(imported: tuple[Shop, ImportReport]):
    _, report = imported
    assert (report.read, report.accepted, report.duplicates, report.rejected) == (541_909, 541_909, 0, 0)
    totals = report.totals
    assert totals is not None
    assert (totals.invoices, totals.customers, totals.lines) == (25_900, 4_372, 541_909)
    assert (totals.cancellation_lines, totals.guest_lines) == (9_288, 135_080)
    assert (totals.orders, totals.cancellations, totals.adjustment_lines) == (19_963, 3_836, 2_111)
    assert totals.value == "9747747.934"
    sums = value_of(DATA)
    found = [Decimal(one) for one in (totals.sold, totals.refunded, totals.adjusted)]
    assert found == [sums[""], -sums["C"], sums["A"]]


def test_the_published_totals_are_those_of_customers_orders_lines_and_refunds(
    engine: Engine, imported: tuple[Shop, ImportReport]
):
    shop, report = imported
    process(engine, shop)
    assert one(engine, shop.id, "SELECT count(*) FROM customers") == (4_372,)
    orders = "SELECT count(*), count(*) FILTER (WHERE customer_id IS NULL), sum(total_minor) FROM orders"
    assert one(engine, shop.id, orders) == (19_963, 1_427, 1_065_562_248)  # pence: four tenths of one are lines' only
    lines, sold = one(engine, shop.id, "SELECT count(*), sum(quantity * unit_minor) FROM order_lines")
    refunds, refunded = one(engine, shop.id, "SELECT count(DISTINCT change_id), sum(amount_minor) FROM order_changes")
    assert (lines + 9_288 + 2_111, refunds) == (541_909, 3_836)
    assert report.totals is not None
    assert (sold - refunded) / 100 + Decimal(report.totals.adjusted) == Decimal("9747747.934")
    assert_refunds_are_of_what_was_bought(engine, shop, report.totals)


def assert_refunds_are_of_what_was_bought(engine: Engine, shop: Shop, totals: Totals) -> None:
    """A refund that names an order is of the same customer, later, and of no more than that order's line has."""
    sql = """
    WITH refunds AS (
      SELECT properties->>'order_id' AS source_order_id, identity->>'external' AS customer, occurred_at,
             line->>'product_id' AS product_id, CAST(line->>'quantity' AS integer) AS quantity
      FROM events CROSS JOIN LATERAL jsonb_array_elements(properties->'products') AS line
      WHERE type = 'order.refunded' AND properties->>'order_id' <> properties->>'invoice'
    ), sums AS (
      SELECT source_order_id, product_id, customer, min(occurred_at) AS first, sum(quantity) AS refunded, count(*) AS n
      FROM refunds GROUP BY 1, 2, 3
    ), bought AS (
      SELECT source_order_id, product_id, sum(quantity) AS quantity FROM order_lines GROUP BY 1, 2
    )
    SELECT sum(s.n) AS lines, bool_and(o.ordered_at <= s.first) AS later, bool_and(b.quantity >= s.refunded) AS enough,
           bool_and(i.value = s.customer) AS theirs
    FROM sums s LEFT JOIN orders o USING (source_order_id) LEFT JOIN bought b USING (source_order_id, product_id)
    LEFT JOIN identities i ON i.customer_id = o.customer_id AND i.kind = 'external'
    """
    row = one(engine, shop.id, sql)
    assert (row.lines, row.later, row.enough, row.theirs) == (totals.cancellation_lines_matched, True, True, True)
    assert totals.cancellation_lines_matched == 7_456
    over = "SELECT count(*) FROM orders WHERE refunded_minor > total_minor"
    assert one(engine, shop.id, over) == (0,)


def sample(path: Path, rows: int = 400) -> Path:
    """Invoices of three lines, every fifth a cancellation of the one before; as CSV."""
    lines = []
    for number in range(rows // 3):
        is_cancelled = number % 5 == 4
        invoice, of = (f"C{number}", number - 1) if is_cancelled else (f"{number}", number)
        for line in range(3):
            quantity = -1 if is_cancelled else 1 + number % 3
            lines.append(
                f"{invoice},S{line},THING,{quantity},2011-01-{1 + number // 10:02} 10:00,{of % 7}.25,{of % 20},UK"
            )
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def stored(engine: Engine, shop: Shop) -> list[tuple]:
    with for_shop(engine, shop.id) as session:
        sql = "SELECT source_id, type, name, occurred_at, identity, properties, context FROM events ORDER BY source_id"
        return [tuple(row) for row in session.execute(text(sql))]


class Killed(Exception):
    pass


def test_killed_anywhere_it_goes_on_and_stores_what_one_run_stores(
    engine: Engine, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = sample(tmp_path / "data.csv")
    whole = import_file(engine, make_shop(engine), path, preset=ONLINE_RETAIL)
    monkeypatch.setattr(importing, "CHUNK", 7)  # which ends within an invoice, mostly

    def killed(done: int, _total: int | None) -> None:
        if done >= 200:
            raise Killed

    with pytest.raises(Killed):
        import_file(engine, shop, path, preset=ONLINE_RETAIL, progress=killed)
    report = import_file(engine, shop, path, preset=ONLINE_RETAIL)
    assert report.resumed_from == 203
    assert (report.read, report.accepted, report.rejected) == (399, 399, 0)
    assert report.totals == whole.totals
    monkeypatch.setattr(importing, "CHUNK", 2_000)
    again = make_shop(engine)
    import_file(engine, again, path, preset=ONLINE_RETAIL)
    assert stored(engine, shop) == stored(engine, again)


def test_the_same_data_in_another_file_is_known_already(engine: Engine, shop: Shop, tmp_path: Path):
    path = sample(tmp_path / "data.csv")
    first = import_file(engine, shop, path, preset=ONLINE_RETAIL)
    other = tmp_path / "other.csv"
    other.write_text(path.read_text().replace(",", ";"))
    report = import_file(engine, shop, other, preset=ONLINE_RETAIL)
    assert (report.read, report.accepted, report.duplicates) == (399, 0, 399)
    assert report.totals == first.totals


def test_a_shop_that_trades_in_another_currency_gets_nothing(engine: Engine, tmp_path: Path):
    dollars = make_shop(engine, "USD")
    with pytest.raises(Rejected, match="--currency GBP"):
        import_file(engine, dollars, sample(tmp_path / "data.csv"), preset=ONLINE_RETAIL)
    assert one(engine, dollars.id, "SELECT count(*) FROM imports") == (0,)
