"""Exploration: a small share of what would be approved is reviewed all the same.

Analysts see high scores only, so what they label tells nothing of the rest (selective labels; Lakkaraju et
al., The Selective Labels Problem, 2017). A share drawn at random does, and catches patterns that the model is
blind to.
"""

from typing import Final

from xxhash import xxh3_64_intdigest

RANGE: Final = 2.0**64


def explored(decision_id: str, share: float, seed: int) -> bool:
    """Whether the decision is drawn, with probability `share` in [0, 1]; always the same for one seed.

    seed: in [0, 2^64). Who does not know it cannot tell which transactions will be looked at.
    """
    return xxh3_64_intdigest(decision_id.encode(), seed) < share * RANGE
