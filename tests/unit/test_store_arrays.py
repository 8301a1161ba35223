"""The quick text of an array column says the same as psycopg's own."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Transformer
from psycopg.types.array import ListDumper

from operation_agent.store.arrays import ColumnDumper

pytestmark = pytest.mark.unit

COLUMNS = st.one_of(
    st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.none() | st.booleans(), min_size=1),
    st.lists(st.none() | st.uuids(), min_size=1),
    st.lists(st.none() | st.datetimes(timezones=st.just(UTC)), min_size=1),
)


def _parse(literal: bytes) -> list[str | None]:
    """A PostgreSQL array literal of one dimension, read back (PostgreSQL manual, 8.15.6)."""
    body, cells, cell, quoted, index = literal.decode()[1:-1], [], "", False, 0
    was_quoted = False
    while index < len(body):
        one = body[index]
        if quoted and one == "\\":
            index += 1
            cell += body[index]
        elif one == '"':
            quoted, was_quoted = not quoted, True
        elif one == "," and not quoted:
            cells.append(None if cell == "NULL" and not was_quoted else cell)
            cell, was_quoted = "", False
        else:
            cell += one
        index += 1
    cells.append(None if cell == "NULL" and not was_quoted else cell)
    return cells


@given(COLUMNS)
def test_a_column_reads_back_as_from_psycopgs_own_dumper(column):
    said = {dumper: _parse(dumper(list, Transformer()).dump(column)) for dumper in (ColumnDumper, ListDumper)}
    quick, own = said[ColumnDumper], said[ListDumper]
    if any(isinstance(one, UUID) for one in column):
        own = [one and str(UUID(one)) for one in own]
    if any(isinstance(one, bool) for one in column):
        own = [one and {"t": "True", "f": "False"}[one] for one in own]
    if any(isinstance(one, datetime) for one in column):
        quick, own = ([one and datetime.fromisoformat(one) for one in side] for side in (quick, own))
    assert quick == own


def test_a_nul_is_refused_as_psycopg_refuses_it():
    with pytest.raises(psycopg.DataError, match="NUL"):
        ColumnDumper(list, Transformer()).dump(["fine", "not\0fine"])
