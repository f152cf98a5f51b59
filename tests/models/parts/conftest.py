from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from models.ensemble import Fit
from models.model import Part
from models.parts import autoencoder, network
from models.parts.fitted import FitOptions, Fitted
from models.parts.trees import TreeOptions
from models.recipe import PARTS, recipe
from state.contract import FEATURE_NAMES, N_FEATURES

OPTIONS = FitOptions(seed=5, threads=1)


class Rows(NamedTuple):
    """features f4 [n, N_FEATURES] with heavy tails and gaps; is_fraud bool [n], which they tell."""

    features: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]


def column(name: str) -> int:
    return FEATURE_NAMES.index(name)


def random_rows(n: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    features = np.exp(1.5 * rng.standard_normal((n, N_FEATURES), np.float32))
    is_fraud = np.asarray(rng.random(n) < 0.05)
    for name in ("amount", "median_ratio", "terminal_frauds", "terminal_risk_7d", "previous_amount_1"):
        features[is_fraud, column(name)] *= 20
    features[:, ::3][rng.random(features[:, ::3].shape) < 0.2] = np.nan
    features[:, 4] = np.nan
    features[:, column("new_device")] = 1.0
    return Rows(features, is_fraud)


def raw(fitted: Fitted, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return Part(fitted.onnx, ([0, 1], [0, 1]), 1.0).raw(features)[:, 0]


def fit_of(name: str) -> Fit:
    return recipe([name], TreeOptions())[name]


@pytest.fixture(scope="session", autouse=True)
def _few_epochs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "MOST_EPOCHS", 6)
        patch.setattr(autoencoder, "EPOCHS", 6)
        yield


@pytest.fixture(scope="session")
def train() -> Rows:
    return random_rows(4000, 1)


@pytest.fixture(scope="session")
def unseen() -> Rows:
    return random_rows(100_000, 2)


@pytest.fixture(scope="session", params=PARTS)
def name(request: pytest.FixtureRequest) -> str:
    """Name of each part."""
    result: str = request.param
    return result


@pytest.fixture(scope="session")
def fitted_of(train: Rows) -> Callable[[str], Fitted]:
    """Each part, fitted once."""
    return cache(lambda name: fit_of(name)(*train, OPTIONS))


@pytest.fixture(scope="session")
def fitted(name: str, fitted_of: Callable[[str], Fitted]) -> Fitted:
    return fitted_of(name)
