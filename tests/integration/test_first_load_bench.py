"""The bench of a first load runs, small: it compares what is stored with what its file was written to hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_a_small_first_load_is_measured_and_checked():
    command = [sys.executable, "-m", "bench.first_load", "--orders", "300", "--sample", "1", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["orders"] == 300 and told["rows"] > 300 and told["events"] > 600
    assert told["peak_mb"] < told["aims"]["peak_mb"]
    assert told["pipeline"]["events"] > 0
