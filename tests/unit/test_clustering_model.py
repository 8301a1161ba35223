"""Assigning is the same for a row however it arrives: alone, in a batch, in another order, after a round trip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operation_agent.clustering.model import CHUNK, Model
from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.unit


def _model(k=4, d=5, seed=0) -> Model:
    draw = np.random.default_rng(seed)
    return Model(
        features=tuple(f"f{at}" for at in range(d)),
        fill=np.arange(d, dtype=float),
        unit=draw.uniform(0.5, 50, d),
        logged=draw.random(d) < 0.5,
        mean=draw.normal(size=d),
        scale=draw.uniform(0.1, 3, d),
        clip=4.0,
        centroids=draw.normal(size=(k, d)),
    )


def _columns(rows, seed=1):
    values = np.random.default_rng(seed).exponential(20, (rows, 5))
    values[np.random.default_rng(seed + 1).random(values.shape) < 0.2] = np.nan
    return {f"f{at}": values[:, at] for at in range(5)}


@given(st.integers(1, 60), st.integers(0, 10_000), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_changes_nothing(rows, seed, random):
    columns, order = _columns(rows, seed), list(range(rows))
    random.shuffle(order)
    numbers, distances = _model().assign(columns)
    again, far = _model().assign({name: column[order] for name, column in columns.items()})
    assert (again == numbers[order]).all()
    np.testing.assert_allclose(far, distances[order])


@given(st.permutations(range(4)), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_renumbering_the_clusters_renumbers_the_answer_and_no_more(order, seed):
    model = _model()
    renumbered = Model(**{**vars(model), "centroids": model.centroids[list(order)]})
    numbers, distances = model.assign(_columns(50, seed))
    again, far = renumbered.assign(_columns(50, seed))
    assert (np.array(order)[again] == numbers).all()
    np.testing.assert_allclose(far, distances)


def test_a_model_comes_back_from_json_as_it_was():
    import orjson

    model = _model()
    again = Model.from_json(orjson.loads(orjson.dumps(model.to_json())))
    assert again.features == model.features
    for name in ("fill", "unit", "logged", "mean", "scale", "centroids"):
        assert (getattr(again, name) == getattr(model, name)).all()
    assert again.clip == model.clip


@pytest.mark.parametrize("broken", [{}, {"features": ["a"]}, {**_model().to_json(), "fill": [1.0]}, {"centroids": 3}])
def test_what_is_no_model_is_refused(broken):
    with pytest.raises(Rejected, match="not a clustering model"):
        Model.from_json(broken)


def test_a_missing_value_is_taken_for_the_fill_and_an_absent_column_is_missing():
    model, columns = _model(), _columns(30)
    filled = {n: np.where(np.isnan(c), model.fill[at], c) for at, (n, c) in enumerate(columns.items())}
    assert (model.assign(columns)[0] == model.assign(filled)[0]).all()
    absent = {name: column for name, column in columns.items() if name != "f3"}
    assert (model.assign(absent)[0] == model.assign({**columns, "f3": np.full(30, np.nan)})[0]).all()


def test_no_customer_and_more_customers_than_a_chunk():
    model = _model()
    assert len(model.assign(_columns(0))[0]) == 0
    columns = _columns(CHUNK + 100)
    last = {name: column[-100:] for name, column in columns.items()}
    assert (model.assign(columns)[0][-100:] == model.assign(last)[0]).all()


def test_a_batch_of_the_event_path_takes_less_than_a_millisecond():
    model, columns = _model(8), _columns(200)
    took = []
    for _ in range(50):
        start = monotonic()
        model.assign(columns)
        took.append(monotonic() - start)
    assert min(took) < 0.001
