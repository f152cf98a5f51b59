"""Online weights over random features."""

from typing import Any

import msgspec
import numpy as np

from events.control import ModelUpdate, OnlineWeights
from models.artefact import FEATURES_SHA256
from state.contract import FEATURE_NAMES


def online_weights(seed: int = 1, **changes: Any) -> OnlineWeights:
    """Weights of every other feature, with `changes`."""
    rng = np.random.default_rng(seed)
    names = FEATURE_NAMES[::2]
    weights = OnlineWeights(
        version="online-7",
        features_sha256=FEATURES_SHA256,
        features=list(names),
        centre=rng.normal(1, 1, len(names)).tolist(),
        scale=rng.uniform(0.5, 2, len(names)).tolist(),
        limit=3.0,
        weight=rng.normal(0, 0.3, len(names)).tolist(),
        offline=0.8,
        bias=-0.3,
        share=0.7,
    )
    return msgspec.structs.replace(weights, **changes)


def online_update(**changes: Any) -> ModelUpdate:
    """The update that makes `online_weights` live."""
    return ModelUpdate(
        slot="online", online=online_weights(**changes), issued_at=1_790_000_000_000, issued_by="tester"
    )
