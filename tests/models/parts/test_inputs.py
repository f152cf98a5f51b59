import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.model import Part
from models.parts.inputs import Inputs, add_inputs, fit_inputs, normalise
from models.parts.onnx_nodes import Nodes
from state.contract import FEATURE_NAMES, N_FEATURES
from tests.models.parts.conftest import Rows, column, random_rows

LIMIT = 5.0
NAMES = ("amount", "median_ratio", "hour", "weekday", "new_device", "terminal_risk_7d")
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def inputs(train: Rows) -> Inputs:
    return fit_inputs(train.features, NAMES, LIMIT, tell_missing=True)


def test_of_training_rows_mean_and_deviation_are_0_and_1(inputs: Inputs, train: Rows) -> None:
    known = ~np.isnan(train.features[:, column("amount")])
    amount = normalise(inputs, train.features)[known, NAMES.index("amount")]
    assert abs(amount.mean()) < 0.05
    assert 0.9 < amount.std() < 1.05


def test_a_missing_value_is_0_and_said_to_be_missing(inputs: Inputs, train: Rows) -> None:
    x = normalise(inputs, train.features)
    lacking = [FEATURE_NAMES[k] for k in inputs.lacking]
    assert lacking == [name for name in NAMES if 0 < np.isnan(train.features[:, column(name)]).mean() < 1]
    for place, name in enumerate(lacking, len(NAMES)):
        missing = np.isnan(train.features[:, column(name)])
        assert np.array_equal(x[:, place], missing)
        assert not x[missing, NAMES.index(name)].any()


def test_what_never_varies_is_0_for_ever(inputs: Inputs) -> None:
    features = np.full((1, N_FEATURES), 1e30, np.float32)
    x = normalise(inputs, features)[0]
    assert x[NAMES.index("weekday")] == 0
    assert x[NAMES.index("new_device")] == 0


@given(values=st.lists(finite, min_size=2, max_size=20))
def test_order_is_kept_within_bounds(inputs: Inputs, values: list[float]) -> None:
    features = np.zeros((len(values), N_FEATURES), np.float32)
    features[:, column("amount")] = np.sort(np.array(values, np.float32))
    amount = normalise(inputs, features)[:, 0]
    assert (np.diff(amount) >= 0).all()
    assert np.abs(amount).max() <= LIMIT + 1e-4


def test_onnx_gives_the_same(inputs: Inputs, unseen: Rows) -> None:
    nodes = Nodes()
    x = add_inputs(nodes, inputs)
    for place in range(inputs.width):
        one = nodes.add("Gather", x, np.array([place]), axis=1)
        part = Part(nodes.model(one), ([0, 1], [0, 1]), 1.0)
        native = normalise(inputs, unseen.features)[:, place]
        assert np.abs(part.raw(unseen.features)[:, 0] - native).max() < 1e-5


def test_rows_are_normalised_one_by_one(inputs: Inputs) -> None:
    features = random_rows(70_000, 3).features
    assert np.array_equal(normalise(inputs, features)[-100:], normalise(inputs, features[-100:]))
