"""Drift of what labels say: Page's test on the losses before learning, by River."""

from typing import Any, Final

from river.drift import PageHinkley

_NUMBERS: Final = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")
_OPTIONS: Final[dict[str, Any]] = {"min_instances": 30, "delta": 0.05, "threshold": 30.0, "mode": "up"}
"""The mean loss may rise by `delta`; a label costs 6.9 at most, so some five surprises are a drift."""


def detector() -> PageHinkley:
    """A detector of rising losses that has seen nothing (Page, Continuous Inspection Schemes, 1954)."""
    return PageHinkley(**_OPTIONS)


def detects(of: PageHinkley, loss: float) -> bool:
    """Take in a loss; whether the losses have risen for good. After that it begins anew."""
    of.update(loss)  # type: ignore[no-untyped-call]
    return bool(of.drift_detected)


def numbers(of: PageHinkley) -> list[float]:
    """All that a detector knows."""
    known = vars(of)
    mean = vars(known["_x_mean"])
    told = (of.drift_detected, mean["n"], mean["_mean"], *(known[name] for name in _NUMBERS))
    return [float(number) for number in told]


def restored(known: list[float]) -> PageHinkley:
    """The detector that `numbers` was asked of. Raises ValueError where there are more or fewer."""
    detected, n, mean, *sums = known
    again = detector()
    again_known = vars(again)
    again_known["_drift_detected"] = bool(detected)
    vars(again_known["_x_mean"]).update(n=n, _mean=mean)
    again_known.update(zip(_NUMBERS, sums, strict=True))
    return again
