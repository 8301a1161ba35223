"""Budgets, caps, executions and approvals under anything that may happen at once, on real PostgreSQL.

Hypothesis draws bursts of steps; in each, several workers with sessions of their own decide, plan, vote, edit, publish,
claim, send, fail, lose answers, look them up, call off and move limits side by side. Then the clock moves, and
everything that was promised is counted anew, from what the provider was really told and from the entries of the
books, not from the counters that were to keep the promise.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, ClassVar
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions import (
    approving,
    budget,
    budget_limits,
    claiming,
    executions,
    manual,
    planning,
    reconciler,
    recording,
)
from operation_agent.actions.budget import Wanted
from operation_agent.actions.channel import NotSent, Outcome, Sent, Unknown
from operation_agent.actions.claimed import Claimed
from operation_agent.approvals import approvals
from operation_agent.customers.features import FEATURES
from operation_agent.decision import batch
from operation_agent.decision.facts import Trigger
from operation_agent.events.event import Event
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import digest_id, new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, create_shop, load_shop, update_settings
from operation_agent.strategies import authoring, lifecycle, records

pytestmark = pytest.mark.integration

WORKERS = 4
BURST = 32
LEAST_STEPS = 10_000
PEOPLE = 6
AUTHOR, VOTERS = "user:0", [f"user:{n}" for n in range(5)]
HOUR = timedelta(hours=1)

HARD, OVERALL, OWN = (3, 24 * HOUR), (4, 48 * HOUR), (2, 12 * HOUR)
EXECUTIONS = 9
BODY = dict.fromkeys(("en", "zh"), "<p>{{ unsubscribe_url }}</p>")
EMAIL = {"action": "email", "topic": "marketing", "subject": {"en": "Hello", "zh": "你好"}, "body": BODY}
SETTINGS = {
    "hard_caps": {"email": {"count": HARD[0], "window": "PT24H"}},
    "caps": [{"count": OVERALL[0], "window": "PT48H", "tag": "sale"}],
    "coupons": {"stacking": True},
    "global_holdout": 0.0,
}


def definition(key: str, event: str, steps: list[dict[str, Any]], **limits: Any) -> dict[str, Any]:
    named = {"en": key, "zh": key}
    rule = {
        "key": "r", "name": named, "priority": 1, "when": {"event": [event], "frequency": "every_time"},
        "if": {"field": "customer.orders", "op": "gte", "value": 0},
        "then": {"arms": [{"key": "a", "weight": 1, "prior": {"increment": 0.05}, "steps": steps}]},
    }  # fmt: skip
    return {
        "key": key, "name": named, "goal": "conversion", "why": named, "holdout": 0.1, "policy": {"kind": "split"},
        "attribution": {"window": "P7D"}, "rules": [rule], **limits,
    }  # fmt: skip


def alpha(percent: int) -> dict[str, Any]:
    """Coupons by mail: they need people's yes, money and one of the day's executions."""
    return definition(
        "alpha", "cart.added", [{"action": "coupon", "percent": percent, "expires_in": "P7D"}, EMAIL],
        caps=[{"channel": "email", "count": OWN[0], "window": "PT12H", "scope": "strategy"}], tags=["sale"],
        budget={"limit": "60", "daily": "25", "per_customer": "12"}, executions_per_day=EXECUTIONS,
        coupons={"stacking": True}, stale_after="P2D",
    )  # fmt: skip


def beta() -> dict[str, Any]:
    """Mail alone, on little money."""
    return definition("beta", "product.viewed", [EMAIL], caps=[], budget={"limit": "0.30", "per_customer": "0.08"})


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the provider was really told. `moment` is the time the message counts at."""

    action_id: UUID
    type: str
    moment: datetime


@dataclass
class World:
    """One shop, what the outside knows, and the highest limits that ever held."""

    engine: Any
    shop_id: UUID
    now: datetime
    people: list[UUID]
    budgets: dict[str, UUID]
    delivered: list[Delivered] = field(default_factory=list)
    launched: list[tuple[UUID, str]] = field(default_factory=list)
    highest: dict[UUID, dict[str, int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def session(self) -> Any:
        return for_shop(self.engine, self.shop_id)

    def tell(self, claimed: Claimed) -> None:
        with self.lock:
            self.delivered.append(Delivered(claimed.id, claimed.type, claimed.moment))

    def was_told(self, action_id: UUID) -> bool:
        with self.lock:
            return any(one.action_id == action_id for one in self.delivered)

    def raised(self, budget_id: UUID, limits: dict[str, int | None]) -> None:
        """Before it is committed: a limit that is about to hold counts."""
        with self.lock:
            kept = self.highest.setdefault(budget_id, {})
            for name, value in limits.items():
                kept[name] = max(kept.get(name, 0), 10**12 if value is None else value)


# -- the steps ----------------------------------------------------------------------------------------------------

Step = Callable[[World, Session, Shop, Random, datetime], None]


def decide(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    """As the agent does: real guardrails, which may have looked at what others are about to change."""
    chosen = random.sample(range(PEOPLE), random.randint(1, 3))
    kind = random.choice(["cart.added", "product.viewed"])
    triggers = [
        Trigger(
            world.people[n], digest_id("person", str(n)), kind,
            Event(new_id(), "test", new_id().hex, kind, at, at, {}, {"product_id": "p"}), at, at,
        )
        for n in chosen
    ]  # fmt: skip
    decisions = batch.decide(session, shop, triggers, _features(len(triggers)), recorded_at=at)
    planning.plan(session, shop, decisions, created_at=at)


@dataclass
class _Table:
    columns: dict[str, Any]


def _features(n: int) -> Any:
    columns: dict[str, Any] = {}
    for name, one in FEATURES.items():
        label = one.kind == "label"
        columns[name] = np.full(n, None, dtype=object) if label else np.full(n, np.nan if one.nullable else 0.0)
    columns["average_order_minor"] = np.full(n, 3000.0)
    return _Table(columns)


_RAW = """
INSERT INTO actions (shop_id, id, decision_id, customer_id, strategy_id, rule_id, arm, step, type, channel, held_out,
  parameters, dedupe_key, decided_at, state, due_at, cost_minor, budget_id, reserved_minor, created_at, tags, stale_at)
VALUES (:shop, :id, :decision, :customer, :strategy, :strategy, 'x', 0, 'email', 'email', false, '{}', :key, :at,
  'ready', :due, 1, :budget, :amount, :at, CAST(:tags AS text[]), :stale)
"""


def pile_up(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    """Messages that nobody held against caps before: a backlog for the claim to sort out."""
    strategy = random.choice(["alpha", "beta"])
    row = records.find(session, shop.id, strategy)
    customer, group, budget_id = random.choice(world.people), new_id(), world.budgets[strategy]
    amount = random.choice([1, 2, 150])
    ids = [new_id() for _ in range(random.randint(1, 3))]
    for one in ids:
        session.execute(
            text(_RAW),
            {
                "shop": shop.id, "id": one, "decision": group, "customer": customer, "strategy": row.id, "key": one.hex,
                "at": at, "due": at - random.randint(0, 30) * HOUR, "budget": budget_id, "amount": amount,
                "tags": random.choice([["sale"], []]), "stale": at + 40 * HOUR,
            },
        )  # fmt: skip
    day = executions.day_of(shop.time_zone, at)
    wanted = [Wanted(budget_id, one, amount, group, customer, day) for one in ids]
    if budget.reserve(session, shop.id, wanted, at=at):
        session.execute(
            text("UPDATE actions SET state = 'over_budget' WHERE shop_id = :shop AND id = ANY(:ids)"),
            {"shop": shop.id, "ids": ids},
        )


def vote(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    waiting = approvals.inbox(session, shop.id, limit=5)
    if waiting:
        approving.vote(
            session, shop, random.choice(waiting).id, by=random.choice(VOTERS), comment="", at=at,
            verdict="reject" if random.random() < 0.06 else "approve",
        )  # fmt: skip


def tidy(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    approving.tidy(session, shop, at=at)


def demand(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    """How many people must say yes."""
    update_settings(session, shop, {"approval": {"types": ["coupon"], "approvers": random.randint(1, 3)}})


def edit(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    """Any later change is another question."""
    changed = records.read(alpha(random.choice([5, 10, 15])))
    authoring.save_draft(session, shop, "alpha", changed, at=at, actor=AUTHOR)


def sign_off(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    authoring.ask_approval(session, shop, "alpha", at=at, actor=AUTHOR)


def publish(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    """Brings the definition's budget back, where somebody had moved it."""
    row = records.hold(session, shop.id, "alpha")
    authoring.publish(session, shop, "alpha", at=at, actor=AUTHOR)
    draft = session.execute(
        text(
            "SELECT a.needed, (SELECT count(DISTINCT v.voter) FROM approval_votes v WHERE v.shop_id = a.shop_id"
            " AND v.approval_id = a.id AND v.verdict = 'approve' AND v.voter <> :author) AS votes FROM approvals a"
            " WHERE a.shop_id = :shop AND a.kind = 'strategy' AND a.subject = :subject AND a.state = 'granted'"
        ),
        {"shop": shop.id, "subject": str(row.id), "author": AUTHOR},
    ).one()
    assert draft.votes >= draft.needed


def ask_campaign(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    approvals.request(
        session, shop.id, kind="campaign", subject="c", fingerprint=random.choice("xyz"), needed=random.randint(1, 2),
        why=[], by=AUTHOR, at=at, expires_at=at + 30 * HOUR,
    )  # fmt: skip


def launch(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    wish = random.choice("xyz")
    if approvals.is_granted(session, shop.id, "campaign", "c", wish, at):
        found = approvals.current(session, shop.id, "campaign", "c")
        assert found is not None
        with world.lock:
            world.launched.append((found.id, wish))


def move_limit(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    strategy = random.choice(["alpha", "beta"])
    whole, part = (6000, 1200) if strategy == "alpha" else (30, 8)
    limits: dict[str, int | None] = random.choice(
        [
            {"limit_minor": random.randint(whole // 2, whole * 2)},
            {"daily_minor": random.choice([None, random.randint(0, whole // 2)])},
            {"per_customer_minor": random.choice([None, random.randint(0, part * 2)])},
        ]
    )
    world.raised(world.budgets[strategy], limits)
    budget_limits.change(session, shop, world.budgets[strategy], limits, at=at, actor=AUTHOR)


def call_off(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    open_ = _some(session, shop, "state IN ('ready', 'waiting_approval', 'parked')")
    if open_:
        manual.cancel(session, shop, random.choice(open_), actor="user:4", at=at)


def look_up(world: World, session: Session, shop: Shop, random: Random, at: datetime) -> None:
    """What became of those whose answer was lost: the provider says the truth."""
    reconciler.expire_leases(session, shop.id, at=at)
    for one in _some(session, shop, "state IN ('unknown', 'parked')")[:1]:
        told = world.was_told(one)
        coupon = {"code": one.hex, "percent": 10, "expires_at": (at + 99 * HOUR).isoformat()}
        manual.resolve(session, shop, one, "sent" if told else "not_sent", coupon, actor="user:4", at=at)


def _some(session: Session, shop: Shop, which: str) -> list[UUID]:
    rows = session.execute(
        text(f"SELECT id FROM actions WHERE shop_id = :shop AND {which} ORDER BY md5(dedupe_key) LIMIT 20"),  # noqa: S608
        {"shop": shop.id},
    )
    return list(rows.scalars())


def deliver(world: World, random: Random, at: datetime) -> None:
    """Claim, tell the provider, record: three steps, and everything else happens in between."""
    channel = random.choice(["email", "email", "coupon"])
    with world.session() as session:
        shop = load_shop(session, world.shop_id)
        claim = claiming.claim(session, shop, channel, limit=random.randint(1, 6), at=at)
    results = []
    for one in claim.claimed:
        what = random.choices(["sent", "refused", "failed", "lost", "crashed"], [10, 2, 1, 2, 1])[0]
        if what == "sent" or (what in ("lost", "crashed") and random.random() < 0.5):
            world.tell(one)
        if what != "crashed":
            results.append(recording.Result(one, _outcome(what, one, at), at, at))
    with world.session() as session:
        recording.record(session, shop, "test", results, at=at)


def _outcome(what: str, claimed: Claimed, at: datetime) -> Outcome:
    if what == "sent":
        coupon = {"code": claimed.id.hex, "percent": 10, "expires_at": (at + 99 * HOUR).isoformat()}
        return Sent(claimed.id.hex, coupon if claimed.type == "coupon" else {})
    return Unknown("lost") if what == "lost" else NotSent(what, permanent=what == "failed")


STEPS: dict[str, Step] = {
    "decide": decide, "pile_up": pile_up, "vote": vote, "tidy": tidy, "demand": demand, "edit": edit,
    "sign_off": sign_off, "publish": publish, "ask_campaign": ask_campaign, "launch": launch, "move_limit": move_limit,
    "call_off": call_off, "look_up": look_up,
}  # fmt: skip
OFTEN = ["decide"] * 5 + ["pile_up"] * 4 + ["deliver"] * 8 + ["vote"] * 5 + ["look_up"] * 2
KINDS = [*OFTEN, *STEPS]
REFUSALS = (Conflict, Denied, NotFound, Rejected)


class Machine(RuleBasedStateMachine):
    """`engine` is set by the test. `steps` and `seen` count over all examples. `failures`: the first is what went
    wrong; Hypothesis runs the example again, and with threads it may go well then."""

    engine: Any
    failures: ClassVar[list[BaseException]] = []
    steps: ClassVar[Counter[str]] = Counter()
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        shop = create_shop(self.engine, slug=f"s-{new_id().hex[-12:]}", name="S", currency="USD", seed=new_id().hex)
        start = SYSTEM.now()
        with for_shop(self.engine, shop.id) as session:
            shop = update_settings(session, shop, SETTINGS)
            for made in (alpha(10), beta()):
                authoring.create(session, shop, records.read(made), at=start, actor=AUTHOR)
                lifecycle.move(session, shop, made["key"], "live", at=start, actor=AUTHOR)
            update_settings(session, shop, {"approval": {"types": ["coupon"], "approvers": 2}})
            people = [_customer(session, shop, n, start) for n in range(PEOPLE)]
            rows = session.execute(text("SELECT * FROM budgets WHERE shop_id = :shop"), {"shop": shop.id}).all()
        self.world = World(self.engine, shop.id, start, people, {row.name: row.id for row in rows})
        for row in rows:
            self.world.raised(row.id, {name: getattr(row, name) for name in budget_limits.LIMITS})
        self.pool = ThreadPoolExecutor(WORKERS)

    @rule(
        burst=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2**20)), min_size=BURST, max_size=BURST),
        hours=st.sampled_from([0, 0, 1, 3, 7, 13, 26]),
    )
    def at_once(self, burst: list[tuple[str, int]], hours: int) -> None:
        shares = [burst[worker::WORKERS] for worker in range(WORKERS)]
        with self._noting():
            for one in [self.pool.submit(self._work, share) for share in shares]:
                one.result()
        self.world.now += hours * HOUR + timedelta(minutes=2)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as failure:
            self.failures.append(failure)
            raise

    def _work(self, share: Sequence[tuple[str, int]]) -> None:
        for kind, seed in share:
            random = Random(seed)
            at = self.world.now + timedelta(seconds=random.uniform(-5, 5))  # nobody's clock is everybody's
            try:
                if kind == "deliver":
                    deliver(self.world, random, at)
                else:
                    with self.world.session() as session:
                        STEPS[kind](self.world, session, load_shop(session, self.world.shop_id), random, at)
                self.steps[kind] += 1
            except REFUSALS as refusal:
                self.steps[kind] += 1
                self.seen[f"refused: {type(refusal).__name__}"] += 1

    @invariant()
    def every_promise_is_kept(self) -> None:
        with self._noting(), self.world.session() as session:
            check_money(self.world, session)
            check_executions(self.world, session)
            check_caps(self.world, session, self.seen)
            check_approvals(self.world, session, self.seen)

    def teardown(self) -> None:
        self.pool.shutdown()
        with self.world.session() as session:
            for row in session.execute(
                text("SELECT state, count(*) AS n FROM actions WHERE shop_id = :shop GROUP BY state"),
                {"shop": self.world.shop_id},
            ):
                self.seen[row.state] += row.n


def _customer(session: Session, shop: Shop, number: int, at: datetime) -> UUID:
    customer = new_id()
    values = {"shop": shop.id, "id": customer, "key": digest_id("person", str(number)), "at": at,
              "email": f"{number}@example.com"}  # fmt: skip
    session.execute(
        text(
            "INSERT INTO customers (shop_id, id, random_key, email, first_seen_at, last_seen_at, created_at)"
            " VALUES (:shop, :id, :key, :email, :at, :at, :at)"
        ),
        values,
    )
    session.execute(
        text(
            "INSERT INTO consents (shop_id, customer_id, channel, topic, state, changed_at, event_id)"
            " VALUES (:shop, :id, 'email', 'marketing', 'subscribed', :at, :id)"
        ),
        values,
    )
    return customer


# -- what was promised --------------------------------------------------------------------------------------------


def _rows(session: Session, world: World, statement: str) -> Sequence[Any]:
    return session.execute(text(statement), {"shop": world.shop_id}).all()


def check_money(world: World, session: Session) -> None:
    """The counters are what the entries add up to, and no limit that ever held was passed."""
    entries = _rows(
        session, world,
        "SELECT r.budget_id, r.customer_id, r.day, r.amount_minor, e.kind AS ended FROM budget_entries r"
        " LEFT JOIN budget_entries e ON e.shop_id = r.shop_id AND e.action_id = r.action_id AND e.kind <> 'reserve'"
        " WHERE r.shop_id = :shop AND r.kind = 'reserve'",
    )  # fmt: skip
    reserved: Counter[UUID] = Counter()
    spent: Counter[UUID] = Counter()
    days: Counter[tuple[UUID, Any]] = Counter()
    people: Counter[tuple[UUID, UUID]] = Counter()
    for row in entries:
        if row.ended == "release":
            continue
        (spent if row.ended == "commit" else reserved)[row.budget_id] += row.amount_minor
        days[row.budget_id, row.day] += row.amount_minor
        people[row.budget_id, row.customer_id] += row.amount_minor
    paid: Counter[UUID] = Counter()
    for row in _rows(session, world, "SELECT id, budget_id, reserved_minor FROM actions WHERE shop_id = :shop"):
        if row.budget_id is not None and world.was_told(row.id):
            paid[row.budget_id] += row.reserved_minor
    for row in _rows(session, world, "SELECT * FROM budgets WHERE shop_id = :shop"):
        most = world.highest[row.id]
        assert (row.reserved_minor, row.spent_minor) == (reserved[row.id], spent[row.id])
        assert row.reserved_minor + row.spent_minor <= row.limit_minor <= most["limit_minor"]
        assert paid[row.id] <= row.reserved_minor + row.spent_minor, "sent for money that was given back"
        assert all(amount <= most["daily_minor"] for (one, _), amount in days.items() if one == row.id)
        assert all(amount <= most["per_customer_minor"] for (one, _), amount in people.items() if one == row.id)
        if row.per_customer_minor is not None:
            kept = _rows(session, world, "SELECT * FROM budget_customers WHERE shop_id = :shop")
            counted = {(one.budget_id, one.customer_id): one.committed_minor for one in kept if one.committed_minor}
            mine = {key: amount for key, amount in people.items() if key[0] == row.id and amount}
            assert {key: amount for key, amount in counted.items() if key[0] == row.id} == mine
    paced = _rows(session, world, "SELECT budget_id, day, committed_minor FROM budget_days WHERE shop_id = :shop")
    assert {(row.budget_id, row.day): row.committed_minor for row in paced if row.committed_minor} == +days


def check_executions(world: World, session: Session) -> None:
    """Decisions that were planned and not turned away, by the day they were made in."""
    rows = _rows(
        session, world,
        "SELECT (a.decided_at AT TIME ZONE 'UTC')::date AS day, count(DISTINCT a.decision_id) AS number FROM actions a"
        " JOIN strategies s ON s.shop_id = a.shop_id AND s.id = a.strategy_id WHERE a.shop_id = :shop"
        " AND s.key = 'alpha' AND a.arm <> 'x' AND NOT a.held_out AND a.state <> 'over_budget'"
        " AND COALESCE(a.reason, '') NOT IN ('daily_limit', 'rejected') GROUP BY 1",
    )  # fmt: skip
    assert all(row.number <= EXECUTIONS for row in rows), rows


def check_caps(world: World, session: Session, seen: Counter[str]) -> None:
    """No window of any cap holds more messages than it may, of those that the provider was told to send."""
    told = {one.action_id: one for one in world.delivered}
    assert len(told) == len(world.delivered), "told twice"
    rows = _rows(
        session, world,
        "SELECT a.id, a.customer_id, a.tags, a.channel, s.key FROM actions a"
        " JOIN strategies s ON s.shop_id = a.shop_id AND s.id = a.strategy_id WHERE a.shop_id = :shop",
    )  # fmt: skip
    mails: dict[UUID, list[tuple[datetime, Any]]] = {}
    for row in rows:
        if row.channel == "email" and row.id in told:
            mails.setdefault(row.customer_id, []).append((told[row.id].moment, row))
    for sent in mails.values():
        _check_window([at for at, _ in sent], *HARD, seen)
        _check_window([at for at, row in sent if "sale" in row.tags], *OVERALL, seen)
        # the strategy's own cap: every message of alpha, tagged or not
        _check_window([at for at, row in sent if row.key == "alpha"], *OWN, seen)


def _check_window(moments: list[datetime], most: int, window: timedelta, seen: Counter[str]) -> None:
    for end in moments:
        inside = sum(end - window < one <= end for one in moments)
        assert inside <= most, f"{inside} messages within {window}, {most} may be"
        seen["windows filled to the brim"] += inside == most


def check_approvals(world: World, session: Session, seen: Counter[str]) -> None:
    """Nothing that needs a yes went out without enough of them, of others than who made it."""
    told = {one.action_id: one for one in world.delivered}
    rows = _rows(
        session, world,
        "SELECT a.id, a.type, p.needed, p.requested_by, p.authors,"
        " ARRAY(SELECT v.voter FROM approval_votes v WHERE v.shop_id = p.shop_id AND v.approval_id = p.id"
        "       AND v.verdict = 'approve') AS voters"
        " FROM actions a LEFT JOIN approvals p ON p.shop_id = a.shop_id AND p.id = a.approval_id"
        " WHERE a.shop_id = :shop AND (a.type = 'coupon' OR a.approval_id IS NOT NULL)",
    )  # fmt: skip
    for row in rows:
        if row.id in told:
            others = set(row.voters) - {row.requested_by, *row.authors}
            assert row.needed is not None and len(others) >= row.needed, "sent unapproved"
            assert AUTHOR not in others
            seen["approved and sent"] += 1
    for approval_id, wish in world.launched:
        found = approvals.find(session, world.shop_id, approval_id)
        assert found.granted_at is not None and found.fingerprint == wish
        assert len(set(found.approvers) - {AUTHOR}) >= found.needed
        seen["campaigns launched"] += 1


def test_no_limit_is_passed_and_nothing_is_sent_unapproved_whatever_happens_at_once(engine, capsys):
    Machine.engine = engine
    Machine.steps, Machine.seen, Machine.failures = Counter(), Counter(), []
    sizes = settings(
        max_examples=16, stateful_step_count=20, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        run_state_machine_as_test(Machine, settings=sizes)
    except Exception:
        if Machine.failures:
            raise Machine.failures[0] from None
        raise
    with capsys.disabled():
        sys.stdout.write(f"\n{Machine.steps.total()} steps: {dict(Machine.steps.most_common())}\n")
        sys.stdout.write(f"seen: {dict(Machine.seen.most_common())}\n")
    assert Machine.steps.total() >= LEAST_STEPS
    # a run in which nothing was at stake would prove nothing
    for wanted in ("windows filled to the brim", "approved and sent", "campaigns launched", "over_budget", "sent"):
        assert Machine.seen[wanted] > 20, wanted
