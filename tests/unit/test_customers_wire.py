"""Looking ids up among ids, without a loop per id."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.customers.wire import Uuids, places

pytestmark = pytest.mark.unit

# few different ones, so that they meet
IDS = st.integers(0, 12).map(lambda number: UUID(int=number << 100 | (number % 3)))


@given(raw=st.lists(IDS, max_size=30), ids=st.lists(IDS, max_size=10, unique=True))
def test_each_is_found_where_it_stands_however_often_it_comes(raw, ids):
    is_there, found = places(Uuids.of(raw).raw, ids)
    assert is_there.tolist() == [one in ids for one in raw]
    np.testing.assert_array_equal(found, [ids.index(one) for one in raw if one in ids])
