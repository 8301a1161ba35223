"""Every wake-up that is rung has a task, and every task a queue: the relay throws away what has none."""

from __future__ import annotations

import os
import subprocess
import sys

import orjson
import pytest

from operation_agent.rehearsal import backtests
from operation_agent.strategies.calendar import JOBS

pytestmark = pytest.mark.unit

_TELL = """
import json
from workers import tasks
from workers.app import ROUTES, app
print(json.dumps([sorted(one for one in app.tasks if not one.startswith("celery.")), sorted(ROUTES)]))
"""


def test_every_task_has_a_queue():
    known = os.environ | {"OPAGENT_BROKER_URL": "redis://127.0.0.1:1/0", "OPAGENT_DATABASE_URL": "postgresql:///none"}
    told = subprocess.run([sys.executable, "-c", _TELL], capture_output=True, check=True, env=known)
    tasks, routes = orjson.loads(told.stdout)
    assert tasks == routes
    assert {*JOBS, backtests.TOPIC} <= set(tasks)
