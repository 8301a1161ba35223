"""Bare Celery: one task that does nothing, on the broker named by BENCH_BROKER. What `bench.pipeline` compares with."""

from __future__ import annotations

import os

from celery import Celery

QUEUE = "bench-noop"

app = Celery("bench", broker=os.environ.get("BENCH_BROKER", "memory://"))
app.conf.update(
    task_ignore_result=True,
    task_default_queue=QUEUE,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.noop")
def noop(number: int) -> None:
    """Nothing: what remains is the price of a task."""
