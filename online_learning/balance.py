"""Class re-balancing by importance weights."""

import math
from typing import Final

import msgspec

LEAST_SHARE: Final = 0.02
LARGEST_SHARE: Final = 0.3
"""Of the weight of all labels so far, what frauds shall have."""
LARGEST_WEIGHT: Final = 10.0


class Balance(msgspec.Struct):
    """How much frauds weigh against legitimate transactions, from the weights seen so far.

    Frauds rarer than `LEAST_SHARE` weigh more, and their multiple of the odds is taken back by an offset in
    the log-odds, so that probabilities stay true (King and Zeng, Logistic Regression in Rare Events Data,
    2001). Frauds more frequent than `LARGEST_SHARE` weigh less, without an offset: that many are due to who
    labels what, not to the traffic. The first labels are weighed as though some of both had been seen.
    """

    fraud: float = 15.0
    legitimate: float = 35.0

    def weigh(self, is_fraud: bool, weight: float) -> tuple[float, float]:
        """Count a label of some weight; the weight to learn it with, and the offset of the log-odds."""
        if is_fraud:
            self.fraud += weight
        else:
            self.legitimate += weight
        share = self.fraud / (self.fraud + self.legitimate)
        held = min(max(share, LEAST_SHARE), LARGEST_SHARE)
        times = min(held / (1 - held) * self.legitimate / self.fraud, LARGEST_WEIGHT)
        offset = math.log(times) if times > 1 else 0.0
        return (weight * times if is_fraud else weight), offset
