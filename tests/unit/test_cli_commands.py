"""What the command line makes of its words before anything is started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli.imports import parse_mapping, which_file
from cli.main import _translated
from operation_agent.kit.errors import Conflict, NotFound, Rejected

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], {}),
        (["customer=Client"], {"customer": "Client"}),
        (["customer=Client,date=Day", "amount=Sum"], {"customer": "Client", "date": "Day", "amount": "Sum"}),
        (["customer=Client, Name,date=Day"], {"customer": "Client, Name", "date": "Day"}),
        (["amount=a=b"], {"amount": "a=b"}),
    ],
)
def test_a_mapping_is_role_equals_column(given, expected):
    assert parse_mapping(given) == expected


@pytest.mark.parametrize("given", ["customer", "=Client", "customer=", ","])
def test_a_mapping_that_is_not_says_so(given):
    with pytest.raises(Rejected, match="ROLE=COLUMN"):
        parse_mapping([given])


def test_public_data_is_imported_by_the_name_it_goes_by():
    assert which_file("orders.csv", None) == ("orders.csv", None)
    assert which_file("cdnow", None) == ("cdnow", None)
    assert which_file("online-retail", "some.csv") == ("some.csv", "online-retail")
    with pytest.raises(Rejected, match="one file at a time"):
        which_file("orders.csv", "more.csv")


def test_wrong_input_exits_with_2_and_every_other_failure_with_1():
    assert _translated(Rejected("bad", where="slug")) == ("bad (slug)", 2)
    assert _translated(NotFound("none")) == ("none", 1)
    assert _translated(Conflict("taken")) == ("taken", 1)
    assert _translated(KeyError("a bug"))[0] is None


def test_help_imports_nothing_heavy():
    program = (
        "import sys, cli.main; heavy = {'sqlalchemy', 'numpy', 'pandas', 'celery', 'fastapi', 'psycopg'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
