"""The Celery application: a doorbell carrier. PostgreSQL is the truth, so the broker may lose or repeat anything.

Messages hold two strings (a shop and a key), nothing to steal and nothing to unpickle. Each setting below answers a
known way of losing or repeating work; docs/decisions/0006-celery.md lists them. Long jobs: run
`celery -A workers.app worker -Q events,actions -c N` beside `-Q jobs -c 1` where you can. One worker for all three
queues works too: the queues take turns, an event or action task gives its process back within seconds, and one
process is always kept free of jobs (`workers.jobs`; with N = 1 there is none to keep).
"""

from __future__ import annotations

import gc
import logging
import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_ready
from kombu import Exchange, Queue

from operation_agent.kit.logging import configure
from operation_agent.kit.settings import settings

from .connections import broker_url

QUEUES = ("events", "actions", "jobs")
ROUTES = {
    "events.process": {"queue": "events"},
    "journeys.advance": {"queue": "events"},
    "actions.deliver": {"queue": "actions"},
    "actions.reconcile": {"queue": "actions"},
    "coupons.recall": {"queue": "actions"},
    "approvals.settle": {"queue": "actions"},
    "integrations.renew": {"queue": "actions"},
    "storefront.change": {"queue": "actions"},
    "integrations.check": {"queue": "jobs"},
    "clustering.fit": {"queue": "jobs"},
    "campaigns.run": {"queue": "jobs"},
    "effects.compare": {"queue": "jobs"},
    "segments.refresh": {"queue": "jobs"},
    "estimators.fit": {"queue": "jobs"},
    "strategies.propose": {"queue": "jobs"},
    "backtests.run": {"queue": "jobs"},
    "code_pools.fill": {"queue": "jobs"},
    "privacy.settle": {"queue": "jobs"},
    "storefront.sync": {"queue": "jobs"},
    "storefront.refresh": {"queue": "jobs"},
    "storefront.reconcile": {"queue": "jobs"},
}
TIME_LIMIT = 120
"""Seconds for a task of `events` and `actions`, whose loops end by themselves after two or five."""

COLLECT_EVERY = 50_000
"""Allocations between two runs of the cycle collector, as in the API."""

JOB_TIME_LIMIT = 1500
VISIBILITY = 3600
"""Seconds until Redis gives an unacknowledged message to somebody else: above twice the longest task, so that no task
runs beside itself. Nobody waits for it: the sweep rings again within seconds for whatever is still to be done."""

_is_redis = broker_url().startswith(("redis", "rediss"))

app = Celery("operation_agent", broker=broker_url(), include=["workers.tasks"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    event_serializer="json",
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure_or_timeout=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    task_send_sent_event=False,
    worker_enable_remote_control=False,
    # a task that is sending goes on: its end is written to PostgreSQL, not to the broker
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=False,
    worker_max_tasks_per_child=20_000,
    worker_max_memory_per_child=1_000_000,
    worker_soft_shutdown_timeout=5.0,
    worker_enable_soft_shutdown_on_idle=False,
    task_time_limit=TIME_LIMIT,
    task_soft_time_limit=TIME_LIMIT - 10,
    task_default_queue="jobs",
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
    task_routes=ROUTES,
    task_publish_retry=False,
    broker_connection_retry_on_startup=True,
    broker_connection_timeout=2.0,
    broker_heartbeat=10,
    broker_pool_limit=4,
    timezone="UTC",
    enable_utc=True,
    visibility_timeout=VISIBILITY,
    broker_transport_options=(
        {
            "visibility_timeout": VISIBILITY,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 3,
            "socket_connect_timeout": 2,
            "socket_keepalive": False,
            "retry_on_timeout": False,
            "health_check_interval": 10,
            "queue_order_strategy": "round_robin",
        }
        if _is_redis
        else {"confirm_publish": True}
    ),
)


@setup_logging.connect
def _logs(**_: Any) -> None:
    configure("worker", level=settings().log_level, json=settings().log_json)
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)


@worker_process_init.connect
def _collect_rarely(**_: Any) -> None:
    """A task makes tens of thousands of small objects and no cycles to speak of; Python's default looks through all of
    them, and through everything that was ever imported, again and again."""
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 20)


@worker_ready.connect
def _start_heartbeat(sender: Any, **_: Any) -> None:
    """Beat from the consumer's own event loop: a worker that hangs stops beating, and no thread is there to fork."""
    from .heartbeat import beat

    name = f"{os.uname().nodename}:{os.getpid()}"
    queues = ",".join(sorted(sender.app.amqp.queues.consume_from))
    beat("worker", name, {"queues": queues})
    sender.timer.call_repeatedly(5.0, beat, ("worker", name, {"queues": queues}))
