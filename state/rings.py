"""Ring buffers inside a profile: bucketed windows, running moments and the list of known frauds.

Bucket b of width w holds the events with floor(time / w) == b, in slot b mod length. The profile's latest
event time says which buckets the ring holds at present, so no ring needs a head of its own.
"""

import math
from typing import Any

import numba as nb
import numpy as np

from state.contract import BUCKETS


@nb.njit(cache=True)
def advance(ring: Any, last_ms: int, newest_ms: int, width: int) -> None:
    """Clear the buckets between the latest event so far and the newest one."""
    head = last_ms // width
    for k in range(1, min(newest_ms // width - head, len(ring)) + 1):
        ring[(head + k) % len(ring)] = 0


@nb.njit(cache=True)
def fold(ring: Any, newest_ms: int, time: int, width: int, value: float) -> None:
    """Add value to the bucket of time, if the ring still holds it."""
    bucket = time // width
    if newest_ms // width - bucket < len(ring):
        ring[bucket % len(ring)] += value


@nb.njit(cache=True)
def window_totals(counts: Any, sums: Any, newest_ms: int, time: int, width: int) -> tuple[float, float]:
    """Count and sum over the BUCKETS buckets up to that of time; NaN where the ring holds none.

    For an event behind the newest one, buckets that the ring no longer holds are left out.
    """
    behind = newest_ms // width - time // width
    if behind >= BUCKETS:
        return np.nan, np.nan
    bucket = time // width
    count = np.int64(0)
    total = 0.0
    for back in range(BUCKETS - behind):
        slot = (bucket - back) % BUCKETS
        count += counts[slot]
        total += sums[slot]
    return float(count), total


@nb.njit(cache=True)
def sample_deviation(count: int, m2: float) -> float:
    """Sample standard deviation from the sum of squared deviations (Welford, 1962); NaN below 2."""
    return math.sqrt(max(m2, 0.0) / (count - 1)) if count > 1 else np.nan


@nb.njit(cache=True)
def fold_label(ids: Any, seconds: Any, label: Any) -> int:
    """Enter a known fraud, or strike it out when a later label says legitimate. Repeats change nothing.

    The place that changed, or -1.
    """
    key = np.uint32(label.id >> np.uint64(32)) | np.uint32(1)
    for k in range(len(ids)):
        if ids[k] == key:
            if not label.is_fraud:
                ids[k] = 0
                seconds[k] = 0
                return int(k)
            return -1
    if not label.is_fraud:
        return -1
    at = np.argmin(seconds)  # a free place, else the fraud longest ago
    if seconds[at] > label.time // 1000:
        return -1
    ids[at] = key
    seconds[at] = label.time // 1000
    return int(at)
