"""The mirror on a real PostgreSQL: any order, repetition and batching of what was told gives the same rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from operation_agent.events.event import Event
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import create_shop, load_shop
from operation_agent.storefront import mirror, records
from operation_agent.storefront.records import KINDS, Complete, Record, Telling

pytestmark = pytest.mark.integration

START = datetime(2026, 5, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def write(engine: Engine, shop_id: UUID, *tellings: Telling) -> mirror.Written:
    with for_shop(engine, shop_id) as session:
        return mirror.write(session, load_shop(session, shop_id), tellings)


def rows(engine: Engine, shop_id: UUID, table: str, columns: str = "*") -> list[dict[str, Any]]:
    with for_shop(engine, shop_id) as session:
        found = session.execute(text(f"SELECT {columns} FROM {table}"))  # noqa: S608 - names from this file
        return sorted(({**row._mapping, "shop_id": None} for row in found), key=repr)


def state(engine: Engine, shop_id: UUID) -> dict[str, list[dict[str, Any]]]:
    tables = [*(kind.table for kind in KINDS.values()), "storefront_listings"]
    return {table: rows(engine, shop_id, table) for table in tables}


def told(engine: Engine, batches: Sequence[Sequence[Telling]]) -> dict[str, list[dict[str, Any]]]:
    shop = create_shop(engine, slug=f"m-{new_id().hex[-12:]}", name="m", currency="USD", sandbox=True)
    for batch in batches:
        write(engine, shop.id, *batch)
    return state(engine, shop.id)


def test_the_kinds_and_their_tables_have_the_same_columns(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        for kind in KINDS.values():
            found = session.execute(
                text(
                    "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a"
                    " WHERE a.attrelid = CAST(:t AS regclass) AND a.attnum > 0 AND NOT a.attisdropped"
                ),
                {"t": kind.table},
            )
            columns = {name: sql.replace("timestamp with time zone", "timestamptz") for name, sql in found}
            ours = {"shop_id", "source_updated_at", "digest", "told", "listed_at", "removed_at", "deleted_at"}
            assert {name: sql for name, sql in columns.items() if name not in ours} == {
                **dict.fromkeys(kind.key, "text"), **kind.columns,
            }  # fmt: skip


_MINUTE = st.integers(0, 5).map(at)
_IDS = st.sampled_from(["1", "2"])
_PRODUCT = st.builds(
    lambda key, when, values, gone: Record("product", (key,), when, values, gone),
    _IDS, _MINUTE,
    st.fixed_dictionaries({}, optional={"title": st.sampled_from("ab"), "tags": st.sampled_from([[], ["x", "y"], None]),
                                        "published_at": st.sampled_from([None, START, START.isoformat()])}),
    st.sampled_from([False, False, False, True]),
)  # fmt: skip
_VARIANT = st.builds(
    lambda key, when, values, gone: Record("variant", (key,), when, values, gone),
    st.sampled_from(["11", "12", "21"]), _MINUTE,
    st.fixed_dictionaries({}, optional={"product_id": _IDS, "price_minor": st.sampled_from([1, 2**53 + 1]),
                                        "sku": st.sampled_from(["s", "t"])}),
    st.sampled_from([False, False, False, False, True]),
)  # fmt: skip
_VARIANTS = st.builds(
    lambda parent, keys, when: Complete("variant", ("product_id", parent), [(key,) for key in keys], when),
    _IDS, st.lists(st.sampled_from(["11", "12", "21"]), unique=True, max_size=3), _MINUTE,
)  # fmt: skip
_MEMBER = st.builds(
    lambda product, when, gone: Record("collection_product", ("c", product), when, {}, gone),
    _IDS, _MINUTE, st.booleans(),
)  # fmt: skip
_MEMBERS = st.builds(
    lambda keys, when: Complete("collection_product", ("collection_id", "c"), [("c", key) for key in keys], when),
    st.lists(_IDS, unique=True), _MINUTE,
)  # fmt: skip
_CART = st.builds(
    lambda when, lines: Record("cart", ("t",), when, {"lines": lines, "value_minor": 5}),
    _MINUTE, st.sampled_from([[], [{"product_id": "1", "quantity": 2}]]),
)  # fmt: skip
_TELLING = st.one_of(_PRODUCT, _VARIANT, _VARIANT, _VARIANTS, _MEMBER, _MEMBERS, _CART)


@st.composite
def _two_ways(draw: st.DrawFn) -> tuple[list[Telling], list[list[Telling]]]:
    tellings = draw(st.lists(_TELLING, min_size=1, max_size=12))
    shuffled = draw(st.permutations([*tellings, *draw(st.lists(st.sampled_from(tellings), max_size=4))]))
    batches: list[list[Telling]] = [[]]
    for one in shuffled:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(one)
    return tellings, [batch for batch in batches if batch]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_two_ways())
def test_any_order_repetition_and_batching_gives_the_same_rows(engine, ways):
    tellings, batches = ways
    assert told(engine, batches) == told(engine, [[one] for one in tellings])


def test_a_part_told_first_is_filled_up_by_an_older_whole(engine, shop_id):
    write(engine, shop_id, Record("variant", ("11",), at(9), {"inventory_quantity": 3}))
    whole = {"product_id": "1", "title": "Red", "inventory_quantity": 8, "price_minor": 2**60}
    write(engine, shop_id, Record("variant", ("11",), at(2), whole))
    (row,) = rows(engine, shop_id, "variants")
    assert (row["inventory_quantity"], row["title"], row["price_minor"]) == (3, "Red", 2**60)
    assert row["source_updated_at"] == at(9)


def test_a_deletion_before_the_thing_leaves_a_tombstone_and_nothing_revives_it(engine, shop_id):
    write(engine, shop_id, Record("product", ("1",), at(5), deleted=True))
    written = write(engine, shop_id, Record("product", ("1",), at(7), {"title": "late"}))
    assert (written.counts["product"].changed, written.counts["product"].gone) == (1, 0)
    (row,) = rows(engine, shop_id, "products")
    assert (row["deleted_at"], row["title"]) == (at(5), "late")


def test_a_deleted_products_variants_are_gone_whenever_they_are_told_of(engine, shop_id):
    write(engine, shop_id, Record("variant", ("11",), at(1), {"product_id": "1"}))
    write(engine, shop_id, Record("product", ("1",), at(5), deleted=True))
    write(engine, shop_id, Record("variant", ("12",), at(2), {"product_id": "1"}))
    assert [row["deleted_at"] for row in rows(engine, shop_id, "variants")] == [at(1), at(2)]


def test_a_variant_without_its_product_told_is_judged_by_the_list_of_the_product_we_know(engine, shop_id):
    write(engine, shop_id, Record("variant", ("11",), at(1), {"product_id": "1"}))
    write(engine, shop_id, Complete("variant", ("product_id", "1"), [], at(5)))
    write(engine, shop_id, Record("variant", ("11",), at(4), {"sku": "s"}))
    assert rows(engine, shop_id, "variants")[0]["deleted_at"] == at(4)
    write(engine, shop_id, Record("variant", ("11",), at(6), {"sku": "s"}))
    assert rows(engine, shop_id, "variants")[0]["deleted_at"] is None


def test_a_product_may_come_back_into_a_collection(engine, shop_id):
    def listing(minute: int, *products: str) -> Complete:
        return Complete("collection_product", ("collection_id", "c"), [("c", one) for one in products], at(minute))

    for minute, products in ((1, ["1", "2"]), (3, ["1"]), (5, ["1", "2"])):
        write(engine, shop_id, listing(minute, *products))
        alive = [row["product_id"] for row in rows(engine, shop_id, "collection_products") if not row["deleted_at"]]
        assert alive == products


def test_known_is_what_was_told_of_and_when(engine, shop_id):
    write(
        engine, shop_id,
        Record("product", ("1",), at(2), {"title": "a"}), Record("product", ("2",), at(3), deleted=True),
        Record("inventory_level", ("i", "l"), at(4), {"available": -2}),
        Complete("variant", ("product_id", "1"), [("11",)], at(2)),
    )  # fmt: skip
    with for_shop(engine, shop_id) as session:
        assert mirror.known(session, shop_id, "product", [("1",), ("2",), ("3",)]) == {("1",): at(2), ("2",): at(3)}
        assert mirror.known(session, shop_id, "inventory_level", [("i", "l"), ("i", "m")]) == {("i", "l"): at(4)}
        assert mirror.known(session, shop_id, "variant", [("11",)]) == {}
        assert mirror.known(session, shop_id, "variant", []) == {}


def test_events_carry_tellings_and_a_bad_one_is_refused_before_anything_is_written(engine, shop_id):
    def event(*tellings: Telling) -> Event:
        properties = {"tellings": records.to_json(tellings)}
        return Event(new_id(), "shopify", new_id().hex, "storefront.changed", START, START, {}, properties)

    good = Record("discount", ("1",), at(1), {"title": "Ten", "starts_at": at(0), "used": 3})
    with for_shop(engine, shop_id) as session:
        mirror.apply(session, load_shop(session, shop_id), [event(good)])
    assert rows(engine, shop_id, "discounts")[0]["starts_at"] == at(0)
    with for_shop(engine, shop_id) as session, pytest.raises(Rejected, match="no column 'colour'"):
        mirror.apply(
            session, load_shop(session, shop_id),
            [event(Record("discount", ("2",), at(1))), event(Record("discount", ("3",), at(1), {"colour": "red"}))],
        )  # fmt: skip
    assert len(rows(engine, shop_id, "discounts")) == 1


def test_writers_at_once_neither_deadlock_nor_lose_what_one_of_them_knows(engine, shop_id):
    """Half tell of variants, half list their products' variants: as if one had told it all."""
    products, failures = [str(number) for number in range(12)], []
    tells = [Record("variant", (f"{p}-{n}",), at(n), {"product_id": p, "title": p}) for p in products for n in range(6)]
    lists = [Complete("variant", ("product_id", p), [(f"{p}-{n}",) for n in range(3)], at(4)) for p in products]
    shares = [tells[::2], [*tells[1::2]][::-1], lists[::2], [*lists[1::2], *lists[::2]][::-1]]

    def work(share: list[Telling]) -> None:
        try:
            for start in range(0, len(share), 5):
                write(engine, shop_id, *share[start : start + 5])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert state(engine, shop_id) == told(engine, [[*lists, *tells]])


@pytest.mark.parametrize("list_first", [True, False])
def test_a_variant_told_of_while_its_product_is_listed_is_not_overlooked(engine, shop_id, list_first):
    tellings: list[Telling] = [
        Complete("variant", ("product_id", "1"), [("11",)], at(5)),
        Record("variant", ("12",), at(2), {"product_id": "1"}),
    ]
    first, second = tellings if list_first else reversed(tellings)
    other = threading.Thread(target=write, args=(engine, shop_id, second))
    with for_shop(engine, shop_id) as session:
        mirror.write(session, load_shop(session, shop_id), [first])
        other.start()
        other.join(0.5)
    other.join()
    assert [(row["variant_id"], row["deleted_at"]) for row in rows(engine, shop_id, "variants")] == [
        ("11", None), ("12", at(2)),
    ]  # fmt: skip
