"""The clustering job on real rows: it names groups, keeps lineages, follows events, and survives a crash midway."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
from sqlalchemy import text

from operation_agent.clustering import job, membership
from operation_agent.customers import features
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop, update_settings

pytestmark = pytest.mark.integration

AT = datetime(2026, 6, 1, tzinfo=UTC)
# size, orders, days between orders, days since the last order, minor units an order, product views in the last days
GROUPS = {
    "once": (220, 1, 0, 300, 2_000, 0),
    "loyal": (140, 8, 20, 10, 6_000, 0),
    "browsing": (160, 0, 0, 0, 0, 9),
}


def _populate(session, shop_id, groups=GROUPS, prefix=""):
    for name, (size, orders, gap, since, minor, views) in groups.items():
        values = {
            "shop": shop_id, "name": prefix + name, "size": size, "orders": orders, "gap": gap, "since": since,
            "minor": minor, "views": views, "at": AT,
        }  # fmt: skip
        for statement in _STATEMENTS:
            session.execute(text(statement.replace("FROM people", "FROM " + _PEOPLE)), values)


# u is spread evenly over [0, 1) by the customer's name and not by chance
_PEOPLE = """(SELECT i, (('x' || substr(md5(:name || i), 1, 8))::bit(32)::bigint / 4294967296.0) AS u,
              (('x' || substr(md5(:name || i), 9, 8))::bit(32)::bigint / 4294967296.0) AS w
              FROM generate_series(1, :size) i) p"""
_STATEMENTS = (
    """INSERT INTO customers (shop_id, id, random_key, first_seen_at, last_seen_at, created_at)
    SELECT :shop, md5(:name || i)::uuid, md5('key' || :name || i)::uuid, :at - interval '400 days', :at, :at
    FROM people""",
    """INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor, updated_at,
                           event_id)
    SELECT :shop, md5(:name || i || '-' || o)::uuid, :name || i || '-' || o, md5(:name || i)::uuid,
           :at - (:since * (0.7 + 0.6 * u) + :gap * o) * interval '1 day', 'USD', :minor * (0.7 + 0.6 * w), :at,
           md5(:name || o)::uuid
    FROM people, generate_series(0, :orders - 1) o""",
    """INSERT INTO timeline (shop_id, customer_id, occurred_at, event_id, type, product_id)
    SELECT :shop, md5(:name || i)::uuid, :at - (v * 2 + 2 * w) * interval '1 day', md5(:name || i || 'v' || v)::uuid,
           'product.viewed', 'p' || (v % 7)
    FROM people, generate_series(1, (:views * (0.6 + 0.8 * u))::int) v WHERE :views > 0""",
)


@pytest.fixture
def shop(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        _populate(session, shop_id)
        return load_shop(session, shop_id)


def _run(engine, shop, days=0):
    return job.run(engine, shop, now=SYSTEM.now(), as_of=AT + timedelta(days=days))


def _members(engine, shop):
    with for_shop(engine, shop.id) as session:
        rows = session.execute(text("SELECT * FROM cluster_members WHERE shop_id = :s"), {"s": shop.id})
        return {row.customer_id: row for row in rows}


def _scalar(engine, shop, sql):
    with for_shop(engine, shop.id) as session:
        return session.execute(text(sql), {"s": shop.id}).scalar()


def test_the_groups_that_are_there_are_found_named_and_filled(engine, shop):
    told = _run(engine, shop)
    assert told["state"] == "live"
    assert told["version"] == 1
    assert told["customers"] == 520
    sizes = {one["label_key"]: one["size"] for one in told["clusters"]}
    assert sizes["one_time"] == 220
    assert sizes["browsing_stage"] == 160
    assert sum(sizes.values()) == 520
    assert len({one["labels"]["zh"] for one in told["clusters"]}) == told["k"]
    assert len(_members(engine, shop)) == 520
    assert _scalar(engine, shop, "SELECT members_at FROM clusterings WHERE shop_id = :s") is not None
    assert told["quality"]["dropped"]["discount_share"] == "the same for everyone"
    detail = _scalar(engine, shop, "SELECT detail FROM audit_log WHERE shop_id = :s AND verb = 'clustering.live'")
    assert set(detail["lineages_new"]) == {one["lineage_id"] for one in told["clusters"]}


def test_a_refit_of_the_same_people_keeps_every_lineage_and_since_when(engine, shop):
    first = _run(engine, shop)
    before = _members(engine, shop)
    second = _run(engine, shop, days=1)
    assert second["version"] == 2
    assert second["ended"] == []
    assert {c["lineage_id"] for c in second["clusters"]} == {c["lineage_id"] for c in first["clusters"]}
    after = _members(engine, shop)
    assert {(key, row.lineage_id, row.since) for key, row in after.items()} == {
        (key, row.lineage_id, row.since) for key, row in before.items()
    }
    assert {str(row.clustering_id) for row in after.values()} == {second["clustering_id"]}
    assert _scalar(engine, shop, "SELECT count(*) FROM clusterings WHERE shop_id = :s AND state = 'live'") == 1


def test_a_group_that_is_gone_ends_its_lineage_and_the_audit_names_it(engine, shop):
    first = _run(engine, shop)
    gone = next(one for one in first["clusters"] if one["label_key"] == "browsing_stage")
    with for_shop(engine, shop.id) as session:
        session.execute(text("DELETE FROM timeline WHERE shop_id = :s"), {"s": shop.id})
        session.execute(
            text("UPDATE customers SET merged_into = id WHERE shop_id = :s AND id = ANY (SELECT customer_id FROM"
                 " cluster_members WHERE lineage_id = :l)"),
            {"s": shop.id, "l": gone["lineage_id"]},
        )  # fmt: skip
        _populate(session, shop.id, {"deal": (200, 3, 25, 60, 90_000, 0)}, "new ")
    second = _run(engine, shop)
    assert gone["lineage_id"] in {one["lineage_id"] for one in second["ended"]}
    assert gone["lineage_id"] not in {one["lineage_id"] for one in second["clusters"]}
    ended = _scalar(
        engine,
        shop,
        "SELECT detail -> 'lineages_ended' FROM audit_log WHERE shop_id = :s AND verb = 'clustering.live'"
        " ORDER BY seq DESC LIMIT 1",
    )
    assert ended == second["ended"]
    assert len(_members(engine, shop)) == 520 - 160 + 200


def test_too_few_customers_is_inconclusive_and_says_so(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        _populate(session, shop_id, {"once": (20, 1, 0, 300, 2_000, 0)})
        shop = load_shop(session, shop_id)
    told = _run(engine, shop)
    assert told["state"] == "inconclusive"
    assert "too few" in told["reason"]
    assert _scalar(engine, shop, "SELECT quality ->> 'code' FROM clusterings WHERE shop_id = :s") == "too_few_customers"
    with for_shop(engine, shop.id) as session:
        assert membership.live_model(session, shop.id) is None


def test_an_inconclusive_refit_leaves_the_live_one_and_reassigns_by_it(engine, shop):
    first = _run(engine, shop)
    with for_shop(engine, shop.id) as session:
        strict = update_settings(session, shop, {"clustering": {"minimum_silhouette": 0.999}})
    second = _run(engine, strict, days=200)
    assert second["state"] == "inconclusive"
    assert any("not apart" in one["verdict"] for one in second["quality"]["tried"])
    assert "passed" not in {one["verdict"] for one in second["quality"]["tried"]}
    members = _members(engine, shop)
    assert {str(row.clustering_id) for row in members.values()} == {first["clustering_id"]}
    assert {row.as_of for row in members.values()} == {AT + timedelta(days=200)}


def test_an_event_moves_its_customer_and_a_late_one_does_not(engine, shop):
    told = _run(engine, shop)
    names = {one["lineage_id"]: one["label_key"] for one in told["clusters"]}
    with for_shop(engine, shop.id) as session:
        row = session.execute(
            text("SELECT customer_id, lineage_id FROM cluster_members WHERE shop_id = :s AND lineage_id = :l"
                 " ORDER BY customer_id LIMIT 1"),
            {"s": shop.id, "l": next(key for key, name in names.items() if name == "browsing_stage")},
        ).one()  # fmt: skip
        for order in range(8):
            session.execute(
                text("INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor,"
                     " updated_at, event_id) VALUES (:s, :i, :o, :c, :t, 'USD', 6000, :t, :i)"),
                {"s": shop.id, "i": new_id(), "o": f"x{order}", "c": row.customer_id,
                 "t": AT + timedelta(days=20 * order + 40)},
            )  # fmt: skip
        later = AT + timedelta(days=190)
        targets = [(row.customer_id, later), (row.customer_id, AT - timedelta(days=1))]
        answered = membership.update(session, shop.id, features.compute(session, shop.id, targets))
    assert answered.clusters[0]["label_key"] in ("loyal", "high_value")
    assert answered.clusters[1]["label_key"] == "browsing_stage"
    member = _members(engine, shop)[row.customer_id]
    assert (member.lineage_id, member.since, member.as_of) == (answered.clusters[0]["lineage_id"], later, later)
    with for_shop(engine, shop.id) as session:
        membership.update(session, shop.id, features.compute(session, shop.id, targets[1:]))
    assert _members(engine, shop)[row.customer_id].lineage_id == member.lineage_id


def test_before_the_first_fit_nobody_is_in_a_cluster(engine, shop):
    with for_shop(engine, shop.id) as session:
        table = features.compute_all(session, shop.id, AT)
        assert membership.update(session, shop.id, table).clusters == [None] * 520


def test_a_run_that_died_before_its_members_is_finished_by_the_next(engine, shop, monkeypatch):
    def die(*_args, **_kwargs):
        raise MemoryError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(membership, "assign_part", die)
        with pytest.raises(MemoryError):
            _run(engine, shop)
    assert _members(engine, shop) == {}
    told = _run(engine, shop)
    assert (told["state"], told["version"]) == ("resumed", 1)
    assert len(_members(engine, shop)) == 520
    assert _run(engine, shop)["version"] == 2


def test_two_jobs_of_a_shop_do_not_run_at_once(engine, shop, monkeypatch):
    inside, leave = Event(), Event()
    original = features.compute_all

    def slow(*args):
        inside.set()
        leave.wait(20)
        return original(*args)

    monkeypatch.setattr(features, "compute_all", slow)
    told = []
    thread = Thread(target=lambda: told.append(_run(engine, shop)))
    thread.start()
    assert inside.wait(20)
    with pytest.raises(Conflict, match="running already"):
        _run(engine, shop)
    leave.set()
    thread.join(60)
    assert told[0]["state"] == "live"
    assert _run(engine, shop)["version"] == 2


def test_events_that_come_during_a_run_are_assigned_by_the_new_model(engine, shop, monkeypatch):
    """An event between reading the features and going live: its customer is assigned again, by its newer features."""
    _run(engine, shop)
    touched = min(_members(engine, shop))
    later = AT + timedelta(days=2)
    original = features.compute_all

    def and_an_event(session, shop_id, as_of):
        table = original(session, shop_id, as_of)
        with for_shop(engine, shop_id) as other:
            now = features.compute(other, shop_id, [(touched, later)])
            features.store(other, shop_id, now)
            membership.update(other, shop_id, now)
        return table

    monkeypatch.setattr(features, "compute_all", and_an_event)
    told = _run(engine, shop, days=1)
    members = _members(engine, shop)
    assert members[touched].as_of == later
    assert {str(row.clustering_id) for row in members.values()} == {told["clustering_id"]}


def test_the_order_in_which_customers_arrived_changes_nothing(engine, shop):
    one = _run(engine, shop)
    other = create_shop(engine, slug="reversed", name="Reversed", currency="USD", sandbox=True, seed="test")
    with for_shop(engine, other.id) as session:
        _populate(session, other.id, dict(reversed(GROUPS.items())))
    two = _run(engine, other)
    assert [(c["size"], c["label_key"], c["profile"]) for c in one["clusters"]] == [
        (c["size"], c["label_key"], c["profile"]) for c in two["clusters"]
    ]


def test_settings_that_are_none_are_refused(engine, shop):
    for wrong in ({"ks": 3}, {"k_min": 9}, {"k_min": "two"}, "many"):
        with for_shop(engine, shop.id) as session:
            changed = update_settings(session, shop, {"clustering": wrong})
        with pytest.raises(Rejected, match=r"settings\.clustering"):
            _run(engine, changed)
