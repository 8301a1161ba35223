"""Row-level security binds the application's role; the outbox coalesces; the audit chain shows a change."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict
from operation_agent.store import audit, outbox
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import create_shop, list_shops

pytestmark = pytest.mark.integration


def test_every_table_forces_row_level_security(engine):
    with for_system(engine) as session:
        bare = session.execute(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'"
                " AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
            )
        ).all()
    assert bare == []


def test_another_shops_rows_do_not_exist(engine, shop_id):
    other = create_shop(engine, slug="other", name="Other", currency="CNY").id
    with for_shop(engine, shop_id) as session:
        audit.record(session, shop_id, at=SYSTEM.now(), actor="me", verb="did", subject="it")
    with for_shop(engine, other) as session:
        assert session.execute(text("SELECT count(*) FROM audit_log WHERE shop_id = :s"), {"s": shop_id}).scalar() == 0
        assert [shop.id for shop in list_shops(session)] == [other]
    with for_system(engine) as session:
        assert session.execute(text("SELECT count(*) FROM audit_log")).scalar() == 0
        assert {shop.id for shop in list_shops(session)} >= {shop_id, other}


def test_a_second_shop_of_the_same_name_is_a_conflict(engine):
    create_shop(engine, slug="twice", name="Twice", currency="USD")
    with pytest.raises(Conflict, match="twice"):
        create_shop(engine, slug="twice", name="Twice", currency="USD")


def test_ten_rings_are_one_wake_up(engine, shop_id):
    for _ in range(10):
        with for_shop(engine, shop_id) as session:
            outbox.ring(session, shop_id, [("events.process", "3"), ("events.process", "1")], at=SYSTEM.now())
    with for_system(engine) as session:
        rows = session.execute(
            text("SELECT key, rings FROM outbox WHERE shop_id = :s ORDER BY key"), {"s": shop_id}
        ).all()
    assert [tuple(row) for row in rows] == [("1", 10), ("3", 10)]


def test_the_audit_chain_shows_a_changed_row(engine, shop_id):
    for number in range(5):
        with for_shop(engine, shop_id) as session:
            audit.record(
                session,
                shop_id,
                at=SYSTEM.now(),
                actor="op",
                verb="rule.published",
                subject=f"rule:{number}",
                detail={"n": number},
            )
    with for_shop(engine, shop_id) as session:
        assert audit.verify(session, shop_id) is None
        session.execute(text("UPDATE audit_log SET actor = 'somebody else' WHERE seq = 3"))
        assert audit.verify(session, shop_id) == 3
        session.rollback()
