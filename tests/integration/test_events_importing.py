"""Imports on a real PostgreSQL: every row accounted for, resumable after a kill, idempotent; CDNOW in full."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from operation_agent.customers import history, identity
from operation_agent.events import importing, intake, queue, tabular
from operation_agent.events.importing import import_file
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop

pytestmark = pytest.mark.integration

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shop(engine, shop_id: UUID) -> Shop:
    with for_shop(engine, shop_id) as session:
        return load_shop(session, shop_id)


def scalar(engine, shop: Shop, sql: str):
    with for_shop(engine, shop.id) as session:
        return session.execute(text(sql)).scalar()


def orders(path: Path, count: int) -> Path:
    path.write_text("customer,date,amount\n" + "".join(f"c{n},2025-01-02,{n}.50\n" for n in range(count)))
    return path


BAD = """customer,date,amount,quantity
1,2025-01-02,10,1
2,soon,10,1
3,2025-01-02,-5,1
4,2025-01-02
5,2999-01-02,10,1
6,2025-01-02,10,1
7,2025-01-02,"a\0b",1
"""


def test_every_row_is_accepted_or_rejected_with_its_line(engine, shop, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text(BAD)
    told: list[tuple[int, int | None]] = []
    report = import_file(engine, shop, path, progress=lambda done, total: told.append((done, total)))
    assert (report.read, report.accepted, report.duplicates, report.rejected) == (7, 2, 0, 5)
    assert [(one.line, one.row[0]) for one in report.rejections] == [(3, "2"), (4, "3"), (5, "4"), (6, "5"), (8, "7")]
    assert "not a date" in report.rejections[0].reason
    assert told[0] == (0, 7)
    assert told[-1] == (7, 7)
    assert scalar(engine, shop, "SELECT count(*) FROM events") == 2
    assert scalar(engine, shop, "SELECT count(*) FROM import_rejections") == 5
    assert scalar(engine, shop, "SELECT count(*) FROM outbox WHERE topic = 'events.process'") >= 1


def test_the_same_file_again_changes_nothing(engine, shop, tmp_path):
    path = orders(tmp_path / "orders.csv", 10)
    first = import_file(engine, shop, path)
    again = import_file(engine, shop, path)
    assert again.import_id == first.import_id
    assert (again.read, again.accepted, again.duplicates, again.resumed_from) == (10, 10, 0, 10)
    assert scalar(engine, shop, "SELECT count(*) FROM events") == 10


def test_the_same_rows_under_another_mapping_are_duplicates(engine, shop, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("customer,date,total,net,order\n1,2025-01-02,10,8,A\n2,2025-01-02,10,8,B\n")
    import_file(engine, shop, path)
    report = import_file(engine, shop, path, mapping={"amount": "net"})
    assert (report.accepted, report.duplicates) == (0, 2)


def test_a_killed_import_goes_on_where_it_stopped(engine, shop, tmp_path, monkeypatch):
    path = orders(tmp_path / "orders.csv", 25)
    path.write_text(path.read_text() + "x,never,1\n")
    monkeypatch.setattr(importing, "CHUNK", 10)

    def killed(done: int, _total: int | None) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(engine, shop, path, progress=killed)
    assert scalar(engine, shop, "SELECT count(*) FROM events") == 20
    report = import_file(engine, shop, path)
    assert (report.resumed_from, report.read, report.accepted, report.rejected) == (20, 26, 25, 1)
    assert scalar(engine, shop, "SELECT count(*) FROM events") == 25


def test_an_order_on_two_lines_is_refused_after_a_resumption_too(engine, shop, tmp_path, monkeypatch):
    path = tmp_path / "orders.csv"
    path.write_text("customer,date,amount,order\n" + "".join(f"1,2025-01-02,1,{o}\n" for o in "ABCA"))
    monkeypatch.setattr(importing, "CHUNK", 2)

    def killed(done: int, _total: int | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(engine, shop, path, progress=killed)
    report = import_file(engine, shop, path)
    assert (report.accepted, report.duplicates) == (3, 0)
    assert "stands on line 2" in report.rejections[0].reason


def test_two_imports_of_one_file_at_once_do_not_mix(engine, shop, tmp_path, monkeypatch):
    path = orders(tmp_path / "orders.csv", 4)
    monkeypatch.setattr(importing, "CHUNK", 2)

    def meanwhile(done: int, _total: int | None) -> None:
        if done == 2:
            import_file(engine, shop, path)

    with pytest.raises(Conflict, match="another process"):
        import_file(engine, shop, path, progress=meanwhile)
    assert scalar(engine, shop, "SELECT accepted FROM imports") == 4


def test_a_wrong_file_leaves_no_trace(engine, shop, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("name,colour\nx,y\n")
    with pytest.raises(Rejected, match="no column was found for date and amount and customer"):
        import_file(engine, shop, path)
    assert scalar(engine, shop, "SELECT count(*) FROM imports") == 0


def cdnow() -> Path:
    path = SHARED / "cdnow" / "CDNOW_master.txt.gz"
    if path.exists():
        return path
    if tabular.find_spec("lifetimes") is not None:
        return tabular.find_cdnow()
    return pytest.skip("neither ../shared/data/cdnow nor the wheel `lifetimes` is here")


def test_cdnow_in_full(engine, shop):
    """69,659 purchases of 23,570 customers, 80 of which paid nothing; total 2,500,315.63 dollars."""
    report = import_file(engine, shop, cdnow())
    assert (report.read, report.accepted, report.rejected) == (69_659, 69_659, 0)
    total = "SELECT sum((properties->>'total_minor')::bigint) FROM events"
    assert scalar(engine, shop, total) == 250_031_563
    assert scalar(engine, shop, "SELECT count(DISTINCT identity->>'external') FROM events") == 23_570
    assert scalar(engine, shop, "SELECT count(*) FROM events WHERE properties->>'total_minor' = '0'") == 80


def test_imported_orders_become_customers_with_orders(engine, shop, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text(
        "customer,date,amount,email\n1,2025-01-02,10,a@x.com\n1,2025-02-02,20,a@x.com\n,2025-03-02,30,b@x.com\n"
    )
    import_file(engine, shop, path)
    for partition in range(intake.PARTITIONS):
        with for_shop(engine, shop.id) as session:
            events = [queued.event for queued in queue.claim(session, shop.id, partition, 100) or []]
            history.apply(session, shop, events, identity.resolve(session, shop, events))
    assert scalar(engine, shop, "SELECT count(*) FROM customers") == 2
    assert scalar(engine, shop, "SELECT string_agg(email, ' ' ORDER BY email) FROM customers") == "a@x.com b@x.com"
    assert scalar(engine, shop, "SELECT array_agg(total_minor::int ORDER BY total_minor) FROM orders") == [
        1000,
        2000,
        3000,
    ]
