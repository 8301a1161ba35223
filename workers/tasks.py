"""The tasks: a name (the outbox topic), how it is delivered, and one call. Each takes a shop and a key."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.logging import logger
from operation_agent.store import outbox, ticks
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop

from .app import JOB_TIME_LIMIT, app
from .connections import engine
from .jobs import Turn, turn

log = logger(__name__)
_JOB = {"time_limit": JOB_TIME_LIMIT, "soft_time_limit": JOB_TIME_LIMIT - 30}


@app.task(name="events.process")
def process_events(shop_id: str, key: str) -> None:
    from .processing import drain

    drain(engine(), UUID(shop_id), int(key))


@app.task(name="journeys.advance")
def advance_journeys(shop_id: str, key: str) -> None:
    from .journeys import advance

    advance(engine(), UUID(shop_id))


@app.task(name="actions.deliver")
def deliver_actions(shop_id: str, key: str) -> None:
    from .delivery import deliver

    deliver(engine(), UUID(shop_id), key)


@app.task(name="actions.reconcile")
def reconcile_actions(shop_id: str, key: str) -> None:
    from .delivery import reconcile

    reconcile(engine(), UUID(shop_id))


@app.task(name="integrations.renew")
def renew_token(shop_id: str, vendor: str) -> None:
    from .connecting import renew

    renew(engine(), UUID(shop_id), vendor)


@app.task(name="integrations.check", **_JOB)
def check_integration(shop_id: str, vendor: str) -> None:
    _job("integrations.check", shop_id, vendor, _check)


@app.task(name="storefront.change")
def make_shop_changes(shop_id: str, key: str) -> None:
    from .shop_changes import make_changes

    make_changes(engine(), UUID(shop_id))


@app.task(name="coupons.recall")
def recall_coupon(shop_id: str, key: str) -> None:
    from .code_pools import recall

    recall(engine(), UUID(shop_id), UUID(key))


@app.task(name="code_pools.fill", **_JOB)
def fill_code_pool(shop_id: str, key: str) -> None:
    _job("code_pools.fill", shop_id, key, _fill_pool)


@app.task(name="approvals.settle")
def settle_approvals(shop_id: str, key: str) -> None:
    from operation_agent.actions import approving

    with for_shop(engine(), UUID(shop_id)) as session:
        approving.tidy(session, load_shop(session, UUID(shop_id)), at=SYSTEM.now())


@app.task(name="clustering.fit", **_JOB)
def fit_clustering(shop_id: str, key: str) -> None:
    _job("clustering.fit", shop_id, key, _fit)


@app.task(name="campaigns.run", **_JOB)
def run_campaigns(shop_id: str, key: str) -> None:
    _job("campaigns.run", shop_id, key, _run)


@app.task(name="effects.compare", **_JOB)
def compare_effects(shop_id: str, key: str) -> None:
    _job("effects.compare", shop_id, key, _compare)


@app.task(name="segments.refresh", **_JOB)
def refresh_segments(shop_id: str, key: str) -> None:
    _job("segments.refresh", shop_id, key, _regroup)


@app.task(name="estimators.fit", **_JOB)
def fit_estimators(shop_id: str, key: str) -> None:
    _job("estimators.fit", shop_id, key, _estimate)


@app.task(name="strategies.propose", **_JOB)
def propose_strategies(shop_id: str, key: str) -> None:
    _job("strategies.propose", shop_id, key, _propose)


@app.task(name="backtests.run", **_JOB)
def run_backtest(shop_id: str, key: str) -> None:
    _job("backtests.run", shop_id, key, _backtest)


@app.task(name="privacy.settle", **_JOB)
def settle_privacy(shop_id: str, key: str) -> None:
    _job("privacy.settle", shop_id, key, _settle)


@app.task(name="storefront.sync", **_JOB)
def sync_storefront(shop_id: str, kind: str) -> None:
    _job("storefront.sync", shop_id, kind, _sync)


@app.task(name="storefront.refresh", **_JOB)
def refresh_storefront(shop_id: str, key: str) -> None:
    _job("storefront.refresh", shop_id, key, _refresh_storefront)


@app.task(name="storefront.reconcile", **_JOB)
def reconcile_storefront(shop_id: str, key: str) -> None:
    _job("storefront.reconcile", shop_id, key, _reconcile_storefront)


def _job(topic: str, shop_id: str, key: str, act: Callable[[UUID, str], None]) -> None:
    """Run it if there is room; ring again if not (the relay spaces a job's wake-ups out)."""
    with turn(engine(), f"{topic}:{shop_id}:{key}") as ours:
        if ours is Turn.OURS:
            act(UUID(shop_id), key)
        elif ours is Turn.BUSY:
            with for_shop(engine(), UUID(shop_id)) as session:
                outbox.ring(session, UUID(shop_id), [(topic, key)], at=SYSTEM.now())


def _fit(shop_id: UUID, _key: str) -> None:
    from operation_agent.clustering import job

    with for_shop(engine(), shop_id) as session:
        shop, at = load_shop(session, shop_id), SYSTEM.now()
    job.run(engine(), shop, now=at)
    with for_shop(engine(), shop_id) as session:
        ticks.finish(session, shop_id, ticks.CLUSTERING, up_to=at + shop.clock_offset, at=SYSTEM.now())


def _compare(shop_id: UUID, _key: str) -> None:
    from operation_agent.feedback import effects

    with for_shop(engine(), shop_id) as session:
        shop, at = load_shop(session, shop_id), SYSTEM.now()
        effects.compare(session, shop, as_of=at + shop.clock_offset, computed_at=at)
        ticks.finish(session, shop_id, ticks.COMPARISON, up_to=at + shop.clock_offset, at=SYSTEM.now())


def _estimate(shop_id: UUID, _key: str) -> None:
    from operation_agent.feedback import estimators

    with for_shop(engine(), shop_id) as session:
        shop, at = load_shop(session, shop_id), SYSTEM.now()
        estimators.fit_all(session, shop, as_of=at + shop.clock_offset, fitted_at=at)
        ticks.finish(session, shop_id, ticks.ESTIMATORS, up_to=at + shop.clock_offset, at=SYSTEM.now())


def _propose(shop_id: UUID, _key: str) -> None:
    from operation_agent.proposals import job

    with for_shop(engine(), shop_id) as session:
        shop, at = load_shop(session, shop_id), SYSTEM.now()
        job.propose_if_clustered(session, shop, as_of=at + shop.clock_offset, at=at, actor="schedule")
        ticks.finish(session, shop_id, ticks.PROPOSALS, up_to=at + shop.clock_offset, at=SYSTEM.now())


def _backtest(shop_id: UUID, backtest_id: str) -> None:
    from operation_agent.rehearsal import backtests

    try:
        backtests.work(engine(), shop_id, UUID(backtest_id))
    except SoftTimeLimitExceeded:
        minutes = JOB_TIME_LIMIT // 60
        backtests.fail(engine(), shop_id, UUID(backtest_id), f"it took more than {minutes} minutes; ask for fewer days")


def _settle(shop_id: UUID, key: str) -> None:
    from .privacy import settle

    settle(engine(), shop_id, key)


def _check(shop_id: UUID, vendor: str) -> None:
    from .connecting import check

    check(engine(), shop_id, vendor)


def _sync(shop_id: UUID, kind: str) -> None:
    from .storefront import sync_kind

    sync_kind(engine(), shop_id, kind)


def _refresh_storefront(shop_id: UUID, _key: str) -> None:
    from .storefront import ask_by_schedule

    ask_by_schedule(engine(), shop_id, ticks.REFRESH, "incremental")


def _reconcile_storefront(shop_id: UUID, _key: str) -> None:
    from .storefront import ask_by_schedule

    ask_by_schedule(engine(), shop_id, ticks.RECONCILE, "reconcile")


def _fill_pool(shop_id: UUID, pool_id: str) -> None:
    from .code_pools import fill

    fill(engine(), shop_id, UUID(pool_id))


def _regroup(shop_id: UUID, _key: str) -> None:
    from .regrouping import refresh

    refresh(engine(), shop_id)


def _run(shop_id: UUID, lane: str) -> None:
    from .campaigns import run

    run(engine(), shop_id, lane)
