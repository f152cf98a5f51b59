"""What the learners say together: dynamic model averaging of the ensemble and all of them."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

FORGETTING: Final = 0.995
"""Of the losses per label: about 200 labels count."""
SHARPNESS: Final = 0.1
"""1 is the likelihood itself, which soon leaves one model; less spreads the weight."""
FLOOR: Final = 0.2
"""Share of the weight that all models have alike, so that none is lost for good."""


class Averaging(msgspec.Struct):
    """Weights of models by how well they foretold the latest labels.

    loss: f8 [models], forgetful sums of log losses. Weights go as the likelihood to the power of `SHARPNESS`
    (Raftery, Karny and Ettler, Online Prediction Under Model Uncertainty via Dynamic Model Averaging, 2010).
    Averaged are log-odds, so that linear models average to a linear one; its log loss is never more than the
    average of theirs.
    """

    loss: NDArray[np.float64]

    def weights(self) -> NDArray[np.float64]:
        """The weight f8 [models] of each model, sum 1."""
        likelihood = np.exp(-SHARPNESS * (self.loss - self.loss.min()))
        shared: NDArray[np.float64] = (1 - FLOOR) * likelihood / likelihood.sum() + FLOOR / len(self.loss)
        return shared

    def learn(self, losses: NDArray[np.float64], weight: float) -> None:
        """Take in the log losses f8 [models] on a label of some weight in [0, 1]."""
        self.loss *= FORGETTING
        self.loss += weight * losses
