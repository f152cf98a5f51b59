import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.baseline import BINS, Baseline, Bins, baseline, count, edge_table
from state.contract import FEATURE_NAMES, N_FEATURES

VALUES = st.floats(width=32) | st.sampled_from((0.0, 1.0, -1.0, float("nan"), float("inf"), 1e-45))


def of_column(values: NDArray[np.float32]) -> Bins:
    """The bins of one feature."""
    features = np.zeros((len(values), N_FEATURES), np.float32)
    features[:, 0] = values
    return baseline(features, np.full(len(values), 0.5)).features["amount"]


def test_a_spread_feature_has_ten_even_bins() -> None:
    bins = of_column(np.random.default_rng(1).normal(0, 1, 20_000).astype(np.float32))

    assert len(bins.edges) == BINS - 1
    assert bins.shares[:-1] == pytest.approx([0.1] * BINS, abs=0.001)
    assert bins.shares[-1] == 0


def test_missing_values_have_a_bin_of_their_own() -> None:
    values = np.arange(1000, dtype=np.float32)
    values[::4] = np.nan
    assert of_column(values).shares[-1] == 0.25
    assert of_column(np.full(10, np.nan, np.float32)) == Bins([], [0.0, 1.0])


def test_a_constant_is_told_from_what_lies_below_and_above() -> None:
    bins = of_column(np.full(100, 7.0, np.float32))

    assert bins.shares == [0.0, 1.0, 0.0, 0.0]
    assert bins.edges[0] < bins.edges[1] == 7.0


@pytest.mark.parametrize("ones", [0.02, 0.5, 0.95])
def test_a_flag_has_a_bin_for_each_of_its_values(ones: float) -> None:
    values = (np.arange(1000) < 1000 * ones).astype(np.float32)
    bins = of_column(values)

    assert sorted(share for share in bins.shares if share) == pytest.approx(sorted((ones, 1 - ones)))


def test_a_heavy_value_among_others_stands_alone() -> None:
    rng = np.random.default_rng(2)
    values = np.where(rng.random(10_000) < 0.5, 3.0, rng.normal(3, 5, 10_000)).astype(np.float32)
    bins = of_column(values)
    at = bins.edges.index(3.0)

    assert bins.shares[at] == pytest.approx(0.5, abs=0.02)


@given(arrays(np.float32, st.integers(1, 60), elements=VALUES))
@example(np.array([np.finfo(np.float32).min]))
def test_any_values_make_a_baseline_that_survives_the_wire(values: NDArray[np.float32]) -> None:
    features = np.repeat(values[:, np.newaxis], N_FEATURES, axis=1)
    made = baseline(features, np.linspace(0, 1, len(values)))

    assert msgspec.json.decode(msgspec.json.encode(made), type=Baseline) == made
    assert list(made.features) == list(FEATURE_NAMES)
    bins = made.features["amount"]
    assert sum(bins.shares) == pytest.approx(1, abs=1e-4)
    assert bins.shares[-1] == pytest.approx(np.isnan(values).mean(), abs=1e-6)


@given(
    arrays(np.float32, st.tuples(st.integers(0, 20), st.just(N_FEATURES)), elements=VALUES),
    arrays(np.float32, 4, elements=st.floats(-1000, 1000, width=32), unique=True),
)
def test_rows_are_counted_as_searchsorted_does(
    features: NDArray[np.float32], edges: NDArray[np.float32]
) -> None:
    edges.sort()
    table = edge_table([edges] * (N_FEATURES + 1))
    score = np.linspace(0, 1, len(features))
    counts = np.zeros((N_FEATURES + 1, BINS + 1), np.int64)
    count(features, score, table, counts)

    for k, column in enumerate((*features.T, score.astype(np.float32))):
        bins = np.where(np.isnan(column), BINS, np.searchsorted(edges, column, side="left"))
        assert counts[k].tolist() == np.bincount(bins, minlength=BINS + 1).tolist()


@pytest.mark.parametrize(
    ("edges", "shares", "reason"),
    [
        ([1.0], [0.5, 0.5], "two shares more"),
        ([1.0, 1.0], [0.5, 0.5, 0.0, 0.0], "do not ascend"),
        ([1.0], [0.5, 0.4, 0.0], "do not sum to 1"),
        ([], [1.5, 0.0], "<= 1"),
        (list(range(10)), [0.0] * 12, "length <= 9"),
        ([1e400], [0.5, 0.5, 0.0], "edges"),
    ],
)
def test_bins_check_themselves(edges: list[float], shares: list[float], reason: str) -> None:
    written = f'{{"edges": {edges}, "shares": {shares}}}'.replace("inf", "1e400")
    with pytest.raises(msgspec.DecodeError, match=reason):
        msgspec.json.decode(written, type=Bins)
