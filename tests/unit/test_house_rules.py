"""Each house rule catches what it is there for, and lets pass what it should."""

from __future__ import annotations

import pytest

from tests import house_rules
from tests.house_rules import parse

pytestmark = pytest.mark.unit

CAUGHT = [
    ("only_the_session_commits", "operation_agent/events/x.py", "def f(session):\n    session.commit()\n"),
    ("only_the_session_commits", "api/routes/x.py", "def f(connection):\n    connection.commit()\n"),
    ("only_the_relay_sends", "api/routes/x.py", "def f(task):\n    task.delay('x')\n"),
    ("only_the_relay_sends", "workers/tasks.py", "def f(app):\n    app.send_task('x')\n"),
    ("only_the_relay_sends", "operation_agent/x.py", "def f(task):\n    task.apply_async()\n"),
    ("only_integrations_call_outside", "operation_agent/x.py", "import httpx\n"),
    ("only_integrations_call_outside", "workers/x.py", "def f():\n    from twilio.rest import Client\n"),
    ("only_integrations_call_outside", "api/x.py", "import requests.adapters\n"),
    (
        "only_the_clock_reads_time",
        "operation_agent/x.py",
        "from datetime import UTC, datetime\nx = datetime.now(UTC)\n",
    ),
    ("only_the_clock_reads_time", "operation_agent/x.py", "import datetime\nx = datetime.datetime.utcnow\n"),
    ("only_the_clock_reads_time", "workers/x.py", "import time\nx = time.time()\n"),
    ("only_the_clock_reads_time", "workers/x.py", "from time import monotonic\n"),
    ("no_time_in_sql", "operation_agent/x.py", "q = 'UPDATE t SET at = NOW()'\n"),
    ("no_time_in_sql", "operation_agent/x.py", "def f(a):\n    return f'SELECT {a} WHERE at < current_timestamp'\n"),
    ("package_files_are_empty", "rules/__init__.py", "from .condition import Condition\n"),
    ("files_are_short", "operation_agent/x.py", "x = 1\n" * 601),
    ("names_say_what", "operation_agent/utils.py", ""),
    ("names_say_what", "api/common/x.py", ""),
    ("every_file_says_why", "operation_agent/x.py", "x = 1\n"),
]

LET_PASS = [
    ("only_the_session_commits", "operation_agent/store/session.py", "def f(session):\n    session.commit()\n"),
    (
        "only_the_session_commits",
        "api/x.py",
        "def f(session, shop, events):\n    intake.commit(session, shop, events)\n",
    ),
    ("only_the_relay_sends", "workers/relay.py", "def f(app):\n    app.send_task('x')\n"),
    ("only_integrations_call_outside", "integrations/shopify/client.py", "import httpx\n"),
    ("only_integrations_call_outside", "operation_agent/x.py", "from . import requests\n"),
    ("only_the_clock_reads_time", "operation_agent/kit/clock.py", "import time\nx = time.monotonic()\n"),
    ("only_the_clock_reads_time", "operation_agent/x.py", "def f(shop):\n    return shop.now()\n"),
    ("only_the_clock_reads_time", "workers/x.py", "import time\ntime.sleep(1)\n"),
    ("no_time_in_sql", "operation_agent/x.py", '"""No now() in SQL here."""\n'),
    ("package_files_are_empty", "rules/__init__.py", ""),
    ("files_are_short", "operation_agent/x.py", "x = 1\n" * 600),
    ("every_file_says_why", "operation_agent/x.py", '"""Why."""\n'),
    ("every_file_says_why", "operation_agent/__init__.py", ""),
]


@pytest.mark.parametrize(("rule", "path", "text"), CAUGHT)
def test_a_breach_is_caught(rule, path, text):
    breaches = list(getattr(house_rules, rule)(parse(path, text)))
    assert [breach.path for breach in breaches] == [path]


@pytest.mark.parametrize(("rule", "path", "text"), LET_PASS)
def test_what_is_allowed_passes(rule, path, text):
    assert list(getattr(house_rules, rule)(parse(path, text))) == []


def test_every_rule_is_run_and_has_a_breach_that_it_catches():
    assert {rule.__name__ for rule in house_rules.RULES} == {rule for rule, _, _ in CAUGHT}


def test_a_breach_says_where():
    (breach,) = house_rules.breaches(iter([parse("api/x.py", '"""Why."""\nimport httpx\n')]))
    assert str(breach).startswith("api/x.py:2: imports httpx")
