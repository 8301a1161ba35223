"""What Prometheus reads at /metrics: this process's requests and events, and the state of the tables at that moment.

Counters live in the process; depths, ages, states and latencies come from the tables, so they are right whichever
process did the work. A shop whose tables take longer than TABLE_BUDGET to count is left out of that scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from operation_agent.actions import code_pools
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.store.session import for_shop, for_system
from operation_agent.store.shops import Shop, list_shops
from operation_agent.storefront import sync
from operation_agent.storefront.connection import PROBLEMS

TABLE_BUDGET = "2s"
CALL_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds in seconds of the histogram from an event's receipt to the call of the provider."""

PROCESS = CollectorRegistry()
ProcessCollector(registry=PROCESS)
PlatformCollector(registry=PROCESS)

REQUESTS = Histogram(
    "opagent_http_request_seconds",
    "Requests by route and status, from the first byte to the last",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    registry=PROCESS,
)
EVENTS = Counter(
    "opagent_events",
    "Events that came in over HTTP, by what became of them",
    ["shop", "source", "outcome"],
    registry=PROCESS,
)
DELIVERIES = Counter(
    "opagent_webhook_deliveries",
    "Signed webhooks, by topic and by what became of them (accepted, duplicate, kept, ignored, rejected)",
    ["vendor", "topic", "outcome"],
    registry=PROCESS,
)
_MOST_TOPICS = 500
"""Above this many the rest is `other`: a topic is a header, and headers are not signed."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


@cache
def _events(shop: str, source: str, outcome: str) -> Counter:
    return EVENTS.labels(shop, source, outcome)


@cache
def _requests(method: str, route: str, status: int) -> Histogram:
    return REQUESTS.labels(method, route, str(status))


def count_events(shop: str, source: str, *, accepted: int = 0, duplicates: int = 0, rejected: int = 0) -> None:
    """Count what one request brought. `shop` is the slug, `source` as in `events.source`."""
    if accepted:
        _events(shop, source, "accepted").inc(accepted)
    if duplicates:
        _events(shop, source, "duplicate").inc(duplicates)
    if rejected:
        _events(shop, source, "rejected").inc(rejected)


_topics: set[tuple[str, str]] = set()


def count_delivery(vendor: str, topic: str, outcome: str) -> None:
    """Count one webhook whose signature fitted."""
    if (vendor, topic) not in _topics:
        if len(_topics) >= _MOST_TOPICS:
            topic = "other"
        _topics.add((vendor, topic))
    _deliveries(vendor, topic, outcome).inc()


@cache
def _deliveries(vendor: str, topic: str, outcome: str) -> Counter:
    return DELIVERIES.labels(vendor, topic, outcome)


class RequestMetrics:
    """ASGI middleware: one observation per request, under its route's template and not its path."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            template = getattr(scope.get("route"), "path", None) or "none"
            _requests(method, template, status).observe(monotonic() - began)


def exposition(engine: Engine) -> bytes:
    """The text that Prometheus reads."""
    tables = CollectorRegistry(auto_describe=False)
    tables.register(_Tables(engine))
    return generate_latest(PROCESS) + generate_latest(tables)


class _Tables(Collector):
    def __init__(self, engine: Engine):
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not read the tables."""
        return []

    def collect(self) -> Iterator[Metric]:
        families = _Families()
        with for_system(self._engine) as session:
            shops = list_shops(session)
            _outbox(session, families)
            _heartbeats(session, families)
        for shop in shops:
            try:
                with for_shop(self._engine, shop.id) as session:
                    session.execute(text(f"SET LOCAL statement_timeout = '{TABLE_BUDGET}'"))
                    _queue(session, shop, families)
                    _actions(session, shop, families)
                    _calls(session, shop, families)
                    _problems(session, shop, families)
                    _pools(session, shop, families)
                    _syncs(session, shop, families)
            except DBAPIError:
                families.skipped.add_metric([shop.slug], 1)
        yield from families.all()


class _Families:
    def __init__(self) -> None:
        self.outbox = GaugeMetricFamily("opagent_outbox_depth", "Wake-ups not yet published", labels=["topic"])
        self.outbox_age = GaugeMetricFamily("opagent_outbox_oldest_seconds", "Age of the oldest wake-up")
        self.heartbeat = GaugeMetricFamily(
            "opagent_heartbeat_age_seconds", "Since a component was last heard of", labels=["component"]
        )
        self.queue = GaugeMetricFamily("opagent_event_queue_depth", "Events still to be processed", labels=["shop"])
        self.queue_age = GaugeMetricFamily(
            "opagent_event_queue_oldest_seconds", "Age of the oldest unprocessed event", labels=["shop"]
        )
        self.failures = GaugeMetricFamily(
            "opagent_event_failures", "Events that could not be processed and wait for a person", labels=["shop"]
        )
        self.actions = GaugeMetricFamily("opagent_actions", "Actions by state", labels=["shop", "channel", "state"])
        self.calls = HistogramMetricFamily(
            "opagent_action_call_seconds",
            "From an event's receipt to the first call of the provider, of undelayed actions",
            labels=["shop", "channel"],
        )
        self.pools = GaugeMetricFamily(
            "opagent_code_pool_codes",
            "Codes of an open pool: free ones, and coupon steps that wait for one",
            labels=["shop", "pool", "kind"],
        )
        self.problems = GaugeMetricFamily(
            "opagent_integration_problem",
            "1 while a provider refuses everything and what would go out to it waits",
            labels=["shop", "vendor", "problem"],
        )
        self.gaps = CounterMetricFamily(
            "opagent_storefront_gaps",
            "Objects that reconciliations found missing, or older here than at the shop",
            labels=["shop", "kind", "what"],
        )
        self.sync_age = GaugeMetricFamily(
            "opagent_storefront_sync_age_seconds", "Since what the last sync of a kind saw", labels=["shop", "kind"]
        )
        self.skipped = GaugeMetricFamily(
            "opagent_scrape_skipped_shop", "Shops whose tables could not be counted in time", labels=["shop"]
        )

    def all(self) -> list[Metric]:
        return list(vars(self).values())


def _outbox(session: Session, families: _Families) -> None:
    rows = session.execute(text("SELECT topic, count(*) AS depth, min(rung_at) AS oldest FROM outbox GROUP BY topic"))
    oldest = None
    for row in rows:
        families.outbox.add_metric([row.topic], row.depth)
        oldest = row.oldest if oldest is None else min(oldest, row.oldest)
    families.outbox_age.add_metric([], (SYSTEM.now() - oldest).total_seconds() if oldest else 0.0)


def _heartbeats(session: Session, families: _Families) -> None:
    now = SYSTEM.now()
    for row in session.execute(text("SELECT component, max(beat_at) AS beat_at FROM heartbeats GROUP BY component")):
        families.heartbeat.add_metric([row.component], (now - row.beat_at).total_seconds())


def _queue(session: Session, shop: Shop, families: _Families) -> None:
    row = session.execute(
        text(
            "SELECT count(*) AS depth, min(received_at) AS oldest,"
            " (SELECT count(*) FROM event_failures WHERE shop_id = :shop) AS failures"
            " FROM event_queue WHERE shop_id = :shop"
        ),
        {"shop": shop.id},
    ).one()
    families.queue.add_metric([shop.slug], row.depth)
    age = (SYSTEM.now() - row.oldest).total_seconds() if row.oldest else 0.0
    families.queue_age.add_metric([shop.slug], age)
    families.failures.add_metric([shop.slug], row.failures)


def _actions(session: Session, shop: Shop, families: _Families) -> None:
    rows = session.execute(
        text("SELECT channel, state, count(*) AS number FROM actions WHERE shop_id = :shop GROUP BY channel, state"),
        {"shop": shop.id},
    )
    for row in rows:
        families.actions.add_metric([shop.slug, row.channel, row.state], row.number)


def _syncs(session: Session, shop: Shop, families: _Families) -> None:
    for kind, health in sync.health(session, shop.id).items():
        families.gaps.add_metric([shop.slug, kind, "missing"], health.missing)
        families.gaps.add_metric([shop.slug, kind, "stale"], health.stale)
        if health.synced_at is not None:
            age = (SYSTEM.now() - health.synced_at).total_seconds()
            families.sync_age.add_metric([shop.slug, kind], age)


def _pools(session: Session, shop: Shop, families: _Families) -> None:
    for name, stock in code_pools.open_stocks(session, shop.id).items():
        families.pools.add_metric([shop.slug, name, "free"], stock.free)
        families.pools.add_metric([shop.slug, name, "waiting"], stock.waiting)


def _problems(session: Session, shop: Shop, families: _Families) -> None:
    """A problem that has passed is told as 0 for as long as the integration is there, so that an alert resolves."""
    rows = session.execute(text("SELECT vendor, problem FROM integrations WHERE shop_id = :shop"), {"shop": shop.id})
    for row in rows:
        for problem in PROBLEMS:
            families.problems.add_metric([shop.slug, row.vendor, problem], int(row.problem == problem))


_CALLS = text("""
SELECT channel, width_bucket(seconds, CAST(:bounds AS double precision[])) AS bucket,
       count(*) AS number, sum(seconds) AS seconds
FROM (SELECT a.channel, extract(epoch FROM a.called_at - a.event_received_at)::double precision AS seconds
      FROM actions AS a
      WHERE a.shop_id = :shop AND NOT a.held_out AND a.called_at IS NOT NULL
        AND a.event_received_at IS NOT NULL) AS calls
GROUP BY channel, bucket
""")


def _calls(session: Session, shop: Shop, families: _Families) -> None:
    per_channel: dict[str, tuple[list[int], float]] = {}
    for row in session.execute(_CALLS, {"shop": shop.id, "bounds": list(CALL_BOUNDS)}):
        counts, total = per_channel.get(row.channel, ([0] * (len(CALL_BOUNDS) + 1), 0.0))
        counts[row.bucket] += row.number
        per_channel[row.channel] = counts, total + row.seconds
    for channel, (counts, total) in per_channel.items():
        bounds = [*(str(bound) for bound in CALL_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(counts), strict=True))
        families.calls.add_metric([shop.slug, channel], buckets, total)
