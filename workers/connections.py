"""Where the database and the broker are, and one engine per process.

A process that was forked makes its own engine: a connection shared by two processes mixes up their answers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from operation_agent.kit.errors import Rejected
from operation_agent.kit.settings import settings
from operation_agent.store.engine import connect

if TYPE_CHECKING:
    from redis import Redis

_engines: dict[int, Engine] = {}
_redis: dict[int, Redis] = {}


def database_url() -> str:
    url = settings().database_url
    if url is None:
        raise Rejected("OPAGENT_DATABASE_URL is not set; `opagent up` starts everything with its own PostgreSQL")
    return url


def broker_url() -> str:
    """Celery's broker, in kombu's spelling (a Unix socket is redis+socket://…?virtual_host=0)."""
    url = settings().broker_url or settings().redis_url
    if url is None:
        raise Rejected("OPAGENT_BROKER_URL is not set; `opagent up` starts everything with its own Redis")
    if url.startswith("unix://"):
        return "redis+socket://" + url.removeprefix("unix://").replace("?db=", "?virtual_host=")
    return url


def engine() -> Engine:
    """This process's engine; made on first use, after any fork."""
    pid = os.getpid()
    if pid not in _engines:
        for inherited in _engines.values():
            inherited.dispose(close=False)
        _engines.clear()
        _engines[pid] = connect(database_url(), pool_size=2, max_overflow=4, application_name="opagent-worker")
    return _engines[pid]


def redis() -> Redis | None:
    """This process's client of the Redis that workers share, or None where there is none (RabbitMQ as the broker)."""
    from redis import Redis

    url = settings().redis_url
    if url is None:
        return None
    pid = os.getpid()
    if pid not in _redis:
        _redis.clear()
        _redis[pid] = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1)
    return _redis[pid]
