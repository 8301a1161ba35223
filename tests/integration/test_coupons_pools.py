"""Codes made ahead at a real peer: all of them once whatever breaks, one for each customer whoever hands them out."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text

from operation_agent.actions import code_pools, pool_filling
from operation_agent.actions.channel import Codes
from operation_agent.actions.claiming import claim
from operation_agent.actions.code_pools import Pool
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from tests.integration.sending import ROOT, Stage, channel, executor, stage
from tests.shopify_peer.peer import Peer
from workers.code_pools import Filler

pytestmark = pytest.mark.integration
TERMS = {"percent": 10}


@pytest.fixture
def here(engine, shop_id) -> Stage:
    made = stage(engine, shop_id)
    made.run(
        "INSERT INTO integrations (shop_id, vendor, channel, base_url, updated_at)"
        " VALUES (:shop, 'shopify', 'coupon', 'x', :at)", at=made.start,
    )  # fmt: skip
    return made


@pytest.fixture
def shop(shopify_peer: Peer) -> Peer:
    shopify_peer.grant("t")
    return shopify_peer


def ask(here: Stage, size: int, *, low_water: int = 0, name: str = "spring", terms: Any = None, **more: Any) -> Pool:
    with for_shop(here.engine, here.shop.id) as session:
        return code_pools.create(
            session, here.shop, name=name, terms=TERMS if terms is None else terms, size=size, low_water=low_water,
            ends_at=more.get("ends_at"), actor="me", at=SYSTEM.now(),
        )  # fmt: skip


def fill(here: Stage, shop: Peer, pool: Pool, **options: Any) -> None:
    with closing(channel("shopify", shop.base_url)) as codes:
        assert isinstance(codes, Codes)
        Filler(here.engine, here.shop, codes, poll=0.01, **options).run(pool.id)


def look(here: Stage, pool: Pool) -> tuple[Pool, code_pools.Stock]:
    with for_shop(here.engine, here.shop.id) as session:
        found = code_pools.load(session, here.shop.id, pool.id)
        return found, code_pools.stocks(session, here.shop.id, [pool.id])[pool.id]


def at_shop(shop: Peer) -> list[str]:
    (node,) = shop.all("DiscountCodeNode")
    return [one["code"] for one in node["discount"]["codes"]]


def ours(here: Stage) -> set[str]:
    return {row.code for row in here.run("SELECT code FROM pool_codes WHERE shop_id = :shop AND is_made")}


def plan(here: Stage, customer: UUID, *, minutes: int = 1, pool: str = "spring", reserve: int = 0, **more: Any) -> UUID:
    given = orjson.dumps({"percent": 10, "expires_in": "P7D", "pool": pool, **more}).decode()
    due_at = here.start + timedelta(minutes=minutes)
    return here.action(customer, type="coupon", parameters=given, due_at=due_at, reserve=reserve)


def deliver(here: Stage, shop: Peer) -> int:
    with executor(here.engine, here.shop, "shopify", shop.base_url) as channel_:
        return channel_.deliver(seconds=5)


# -- filling ----------------------------------------------------------------------------------------------------------


def test_a_pool_is_one_discount_with_its_codes_added_in_batches(here: Stage, shop: Peer):
    pool = ask(here, 601, terms={"amount": "5.00", "minimum_subtotal": 40})
    fill(here, shop, pool)
    found, stock = look(here, pool)
    assert (found.state, stock.made, stock.free, stock.given, stock.coming) == ("ready", 601, 601, 0, 0)
    assert sorted(at_shop(shop)) == sorted(ours(here))
    assert len(set(at_shop(shop))) == len(at_shop(shop)) == 601
    sizes = [len(call["variables"]["codes"]) for call in shop.calls("discountRedeemCodeBulkAdd")]
    assert sizes == [250, 250, 100]
    (node,) = shop.all("DiscountCodeNode")
    assert node["discount"]["usageLimit"] == 1  # of each code


@pytest.mark.parametrize(
    ("step", "count"), [("made", 1), ("before Add", 1), ("added", 1), ("added", 2), ("before Check", 3), ("checked", 1)]
)
def test_a_worker_killed_anywhere_loses_and_doubles_no_code(here: Stage, shop: Peer, step: str, count: int):
    pool = ask(here, 520)
    url = here.engine.url.render_as_string(hide_password=False)
    arguments = [url, str(here.shop.id), shop.base_url, str(pool.id), step, str(count)]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.integration.crashing_pools", *arguments], cwd=ROOT, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    fill(here, shop, pool)
    found, stock = look(here, pool)
    assert (found.state, stock.made, stock.refused) == ("ready", 520, 0)
    assert sorted(at_shop(shop)) == sorted(ours(here))
    assert len(at_shop(shop)) == 520


@pytest.mark.parametrize("operation", ["discountCodeBasicCreate", "discountRedeemCodeBulkAdd"])
def test_a_lost_answer_is_made_good_by_asking_again(here: Stage, shop: Peer, operation: str):
    pool = ask(here, 20)
    shop.fault("drop_after", operation)
    fill(here, shop, pool)
    waiting, _ = look(here, pool)
    assert waiting.state == "filling"
    assert waiting.error
    with for_shop(here.engine, here.shop.id) as session:
        assert code_pools.due(session, here.shop, at=SYSTEM.now()) == []
        later = SYSTEM.now() + timedelta(minutes=2)
        assert code_pools.due(session, here.shop, at=later) == [("code_pools.fill", str(pool.id))]
    fill(here, shop, pool)
    found, stock = look(here, pool)
    assert (found.state, found.error, stock.made) == ("ready", None, 20)
    assert sorted(at_shop(shop)) == sorted(ours(here))


def test_codes_that_are_somebody_elses_are_made_anew(here: Stage, shop: Peer):
    pool = ask(here, 10)
    taken = [pool_filling.code_of(here.shop, pool.id, number) for number in (0, 4)]
    for number, code in enumerate(taken):
        shop.put(
            DiscountCodeNode={"id": 900 + number, "discount": {
                "__typename": "DiscountCodeBasic", "title": "Theirs", "startsAt": "2026-01-01T00:00:00Z",
                "endsAt": None, "usageLimit": None, "codes": [{"__typename": "DiscountRedeemCode", "id": f"gid://x/{number}",
                "code": code, "asyncUsageCount": 0}],
                "customerGets": {"value": {"__typename": "DiscountPercentage", "percentage": 0.5},
                                 "items": {"__typename": "AllDiscountItems", "allItems": True}}}}
        )  # fmt: skip
    fill(here, shop, pool)
    found, stock = look(here, pool)
    assert (found.state, stock.made, stock.refused) == ("ready", 10, 2)
    assert not ours(here) & set(taken)


def test_terms_that_the_shop_refuses_fail_the_pool_and_say_why(here: Stage, shop: Peer):
    pool = ask(here, 5, terms={"percent": 10, "products": ["404"]})
    fill(here, shop, pool)
    found, stock = look(here, pool)
    assert found.state == "failed"
    assert "404" in str(found.error)
    assert code_pools.problem_of(found, stock) == "failed"
    with for_shop(here.engine, here.shop.id) as session:
        assert code_pools.due(session, here.shop, at=SYSTEM.now() + timedelta(days=1)) == []


def test_a_pool_is_asked_for_with_terms_that_read_and_a_name_that_is_free(here: Stage):
    ask(here, 5)
    with pytest.raises(Conflict, match="already"):
        ask(here, 5)
    for terms, where in (
        ({}, "terms"), ({"percent": 200}, "terms.percent"), ({"percent": 10, "offer": "x"}, "terms.offer"),
        ({"percent": 10, "eligible": "customer"}, "terms.eligible"),
    ):  # fmt: skip
        with pytest.raises(Rejected) as refused:
            ask(here, 5, name="other", terms=terms)
        assert refused.value.where == where
    with pytest.raises(Rejected):
        ask(here, 5, name="other", ends_at=here.start)


# -- giving -----------------------------------------------------------------------------------------------------------


def test_a_step_takes_a_code_and_calls_nobody(here: Stage, shop: Peer):
    pool = ask(here, 3)
    fill(here, shop, pool)
    calls = len(shop.calls())
    ada = here.customer()
    first = plan(here, ada, reserve=300)
    again = plan(here, ada, reserve=300, minutes=2)
    letter = here.action(ada, after_action=first)
    assert deliver(here, shop) == 2
    assert len(shop.calls()) == calls
    one, other = here.one(first), here.one(again)
    assert (one.state, other.state) == ("sent", "sent")
    assert one.result["code"] == other.result["code"] in ours(here)
    assert one.provider == "shopify"
    assert here.budget() == (0, 300)
    (coupon,) = here.run("SELECT * FROM coupons WHERE shop_id = :shop")
    assert (coupon.code, coupon.pool_id) == (one.result["code"], pool.id)
    assert here.one(letter).state == "ready"
    _, stock = look(here, pool)
    assert (stock.given, stock.free) == (1, 2)


def test_an_empty_pool_makes_steps_wait_and_filling_it_wakes_them(here: Stage, shop: Peer):
    pool = ask(here, 2, low_water=1)
    fill(here, shop, pool)
    actions = [plan(here, here.customer(), reserve=100) for _ in range(4)]
    deliver(here, shop)
    states = Counter(here.one(one).state for one in actions)
    assert states == {"sent": 2, "ready": 2}
    waiting = next(here.one(one) for one in actions if here.one(one).state == "ready")
    assert "empty" in waiting.reason
    assert here.budget() == (200, 200)
    found, stock = look(here, pool)
    assert (stock.waiting, code_pools.problem_of(found, stock)) == (2, "empty")
    rung = here.run("SELECT key FROM outbox WHERE shop_id = :shop AND topic = 'code_pools.fill'")
    assert [row.key for row in rung] == [str(pool.id)]
    fill(here, shop, pool)
    deliver(here, shop)
    assert {here.one(one).state for one in actions} == {"sent"}
    assert len({here.one(one).result["code"] for one in actions}) == 4
    fill(here, shop, pool)
    found, stock = look(here, pool)
    assert (stock.waiting, stock.free >= 1, code_pools.problem_of(found, stock)) == (0, True, None)


@pytest.mark.parametrize(
    ("more", "state", "reason"),
    [({"pool": "nobody"}, "ready", "no code pool"), ({"percent": 20}, "failed", "something else")],
)  # fmt: skip
def test_a_step_that_fits_no_pool_says_so(here: Stage, shop: Peer, more: dict[str, Any], state: str, reason: str):
    fill(here, shop, ask(here, 3))
    action = plan(here, here.customer(), **more)
    deliver(here, shop)
    assert here.one(action).state == state
    assert reason in here.one(action).reason


def test_a_used_code_is_not_told_again(here: Stage, shop: Peer):
    fill(here, shop, ask(here, 3))
    ada = here.customer()
    plan(here, ada)
    deliver(here, shop)
    here.run("UPDATE coupons SET redeemed_at = issued_at WHERE shop_id = :shop")
    second = plan(here, ada, minutes=3, reserve=100)
    deliver(here, shop)
    assert here.one(second).state == "failed"
    assert here.budget() == (0, 0)


def test_closing_a_pool_ends_its_codes_and_gives_back_what_they_cannot_cost_any_more(here: Stage, shop: Peer):
    pool = ask(here, 3)
    fill(here, shop, pool)
    plan(here, here.customer(), reserve=100)
    deliver(here, shop)
    assert here.budget() == (0, 100)
    with for_shop(here.engine, here.shop.id) as session:
        code_pools.close(session, here.shop, pool.id, actor="me", at=SYSTEM.now())
    late = plan(here, here.customer(), minutes=2)
    fill(here, shop, pool)
    fill(here, shop, pool)
    found, _ = look(here, pool)
    assert (found.state, found.deactivated_at is not None) == ("closed", True)
    assert len(shop.calls("discountCodeDeactivate")) == 1
    assert here.budget() == (0, 0)
    deliver(here, shop)
    assert here.one(late).state == "failed"
    fill(here, shop, ask(here, 1))  # the name is free again
    again = plan(here, here.customer(), minutes=3)
    deliver(here, shop)
    assert here.one(again).state == "sent"


def test_eight_hands_give_900_codes_to_1000_customers_once_each(here: Stage, shop: Peer):
    pool = ask(here, 900)
    with for_shop(here.engine, here.shop.id) as session:
        session.execute(
            text(
                "INSERT INTO pool_codes (shop_id, pool_id, number, code, is_made)"
                " SELECT :shop, :pool, n, 'C' || n, true FROM generate_series(0, 899) AS n"
            ),
            {"shop": here.shop.id, "pool": pool.id},
        )
        session.execute(
            text("UPDATE code_pools SET state = 'ready' WHERE shop_id = :shop AND id = :pool"),
            {"shop": here.shop.id, "pool": pool.id},
        )
        customers = [new_id() for _ in range(1000)]
        values = {"shop": here.shop.id, "ids": customers, "at": here.start, "strategy": here.strategy_id}
        session.execute(
            text(
                "INSERT INTO customers (shop_id, id, random_key, first_seen_at, last_seen_at, created_at)"
                " SELECT :shop, id, id, :at, :at, :at FROM unnest(CAST(:ids AS uuid[])) AS c (id)"
            ),
            values,
        )
        # everybody twice, at moments that nobody has put in order
        session.execute(
            text(
                "INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type,"
                " channel, held_out, parameters, dedupe_key, decided_at, state, due_at, created_at)"
                " SELECT :shop, gen_random_uuid(), gen_random_uuid(), c.id, :strategy, :strategy, 'a', 0, 'coupon',"
                " 'coupon', false, '{\"percent\": 10, \"pool\": \"spring\"}', 'k' || n || c.id, :at, 'ready', :at, :at"
                " FROM unnest(CAST(:ids AS uuid[])) AS c (id) CROSS JOIN generate_series(1, 2) AS n"
            ),
            values,
        )

    def hand(_: int) -> int:
        taken = 0
        while True:
            with for_shop(here.engine, here.shop.id) as session:
                batch = claim(session, here.shop, "coupon", limit=32, at=SYSTEM.now())
            assert batch.claimed == []
            if not batch.taken:
                return taken
            taken += batch.taken

    with ThreadPoolExecutor(8) as hands:
        assert sum(hands.map(hand, range(8))) >= 2000
    rows = here.run("SELECT customer_id, code FROM pool_codes WHERE shop_id = :shop AND given_at IS NOT NULL")
    assert len(rows) == len({row.code for row in rows}) == len({row.customer_id for row in rows}) == 900
    told = here.run(
        "SELECT customer_id, result ->> 'code' AS code FROM actions WHERE shop_id = :shop AND state = 'sent'"
    )
    assert {(row.customer_id, row.code) for row in told} == {(row.customer_id, row.code) for row in rows}
    left = here.run("SELECT state, reason, count(*) AS n FROM actions WHERE shop_id = :shop AND state <> 'sent'"
                    " GROUP BY 1, 2")  # fmt: skip
    assert [(row.state, row.n) for row in left] == [("ready", 2000 - len(told))]
    assert len(told) == 1800
