"""Every wake-up that is rung has a task, and every task a queue: the relay throws away what has none."""

from __future__ import annotations

import pytest

from operation_agent.rehearsal import backtests
from operation_agent.strategies.calendar import JOBS

pytestmark = pytest.mark.unit


def test_every_task_has_a_queue():
    from workers import tasks  # noqa: F401  (registers them)
    from workers.app import ROUTES, app

    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours == set(ROUTES)
    assert set(JOBS) <= ours
    assert backtests.TOPIC in ours
