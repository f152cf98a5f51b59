"""The features of a fixed history and the scores of the shipped model, as they were when they were committed.

`python -m tests.models.test_golden` writes them anew, after a change that is meant.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.artefact import load_model
from models.signing import TRUSTED_KEYS, Keyring
from state.contract import CONTRACT_VERSION, FEATURE_NAMES
from tests.state.histories import DAY_MS, History, label, replayed, steady
from tests.state.reference import KnownLabel

SHIPPED = Path(__file__).parents[2] / "models" / "artefacts" / "first"
GOLDEN = Path(__file__).with_name("golden.json")
ROWS = 40
LENGTH = 1200


def features() -> NDArray[np.float32]:
    """Of the last transactions of a stream in which every 25th turns out to be fraud two days later."""
    transactions = steady(LENGTH, 11)
    labels = [
        KnownLabel(min(k + 570, LENGTH), label(transactions[k], True)) for k in range(0, LENGTH - 570, 25)
    ]
    return replayed(History(transactions, labels), DAY_MS).features[-ROWS:]


def computed() -> dict[str, Any]:
    rows = features()
    model = load_model(SHIPPED, Keyring.read(TRUSTED_KEYS))
    answered = ~np.isnan(rows[:, 0])
    scores = model.score(rows[answered])
    return {
        "contract_version": CONTRACT_VERSION,
        "model_version": model.version,
        "features": {
            name: [None if np.isnan(v) else v for v in column]
            for name, column in zip(FEATURE_NAMES, rows.T.tolist(), strict=True)
        },
        "parts": {name: part.tolist() for name, part in scores.parts.items()},
        "score": scores.score.tolist(),
    }


def numbers(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def test_features_and_scores_are_what_they_were() -> None:
    golden, found = msgspec.json.decode(GOLDEN.read_bytes()), computed()
    assert found["model_version"] == golden["model_version"]
    assert found["contract_version"] == golden["contract_version"]
    assert list(found["features"]) == list(golden["features"])
    for name, values in golden["features"].items():
        # Sines, square roots and logarithms may differ in the last place from machine to machine.
        np.testing.assert_allclose(
            numbers(found["features"][name]), numbers(values), rtol=1e-6, atol=1e-7, err_msg=name
        )
    for name, values in golden["parts"].items():
        np.testing.assert_allclose(found["parts"][name], values, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found["score"], golden["score"], atol=1e-5)


if __name__ == "__main__":
    GOLDEN.write_bytes(msgspec.json.format(msgspec.json.encode(computed()), indent=0) + b"\n")
