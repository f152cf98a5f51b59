"""Where countries lie: decisions say the country and no closer place."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from serving.stored import StoredDecision

PLACES: Final[dict[str, tuple[float, float]]] = msgspec.json.decode(
    (Path(__file__).parent / "countries.json").read_bytes(), type=dict[str, tuple[float, float]]
)
"""Latitude and longitude in degrees of the middle of each country's largest part, by ISO 3166-1 alpha-2.

Computed, as the outline in `static/world.svg`, from Natural Earth, which is in the public domain.
"""


def points(decisions: Sequence[StoredDecision]) -> list[dict[str, Any]]:
    """A point for each country of decisions, the newest first, as `WorldMap` shows them."""
    counts = Counter(d.country for d in decisions if d.country in PLACES)
    flagged = {d.country for d in decisions if d.decision != "approve"}
    now = next((d.country for d in decisions if d.country in PLACES), None)
    return [
        {
            "name": country,
            "latitude": PLACES[country][0],
            "longitude": PLACES[country][1],
            "radius": round(min(9.0, 2.2 + count**0.5), 2),
            "flagged": country in flagged,
            "now": country == now,
            "title": f"{country}: {count} transactions",
        }
        for country, count in counts.most_common()
        if country is not None
    ]


def way(decisions: Sequence[StoredDecision]) -> str:
    """SVG path data through the countries of decisions, the oldest first, one arc for each change."""
    found: list[str] = []
    for decision in reversed(decisions):
        if decision.country in PLACES and (not found or found[-1] != decision.country):
            found.append(str(decision.country))
    spots = [(PLACES[name][1] + 180, 90 - PLACES[name][0]) for name in found[-12:]]
    arcs = []
    for (x, y), (u, v) in pairwise(spots):
        bend = 0.18 * abs(u - x) + 2
        arcs.append(f"M{x:.1f} {y:.1f}Q{(x + u) / 2:.1f} {(y + v) / 2 - bend:.1f} {u:.1f} {v:.1f}")
    return "".join(arcs)
