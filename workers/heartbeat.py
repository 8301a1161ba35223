"""Saying "I am here" in the table `heartbeats`, so that /readyz and `opagent doctor` can name who is missing."""

from __future__ import annotations

from typing import Any

import psycopg

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.logging import logger

from .connections import database_url

log = logger(__name__)

_BEAT = """
INSERT INTO heartbeats (component, instance, beat_at, detail) VALUES (%s, %s, %s, %s)
ON CONFLICT (component, instance) DO UPDATE SET beat_at = EXCLUDED.beat_at, detail = EXCLUDED.detail
"""
_FORGET = "DELETE FROM heartbeats WHERE beat_at < %s - interval '1 day'"


def beat(component: str, instance: str, detail: dict[str, Any] | None = None) -> None:
    """One row, written by a connection of its own that is not kept: the caller may fork. Never raises: a database
    that is away is somebody else's news."""
    from psycopg.types.json import Jsonb

    now = SYSTEM.now()
    try:
        with psycopg.connect(database_url(), connect_timeout=2) as connection:
            connection.execute("SELECT set_config('app.system', 'on', true)")
            connection.execute(_BEAT, (component, instance, now, Jsonb(detail or {})))
            connection.execute(_FORGET, (now,))
    except psycopg.Error as error:
        log.warning("heartbeat_failed", component=component, error=str(error))
