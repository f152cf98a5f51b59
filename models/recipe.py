"""Which parts an ensemble can have, and how each is fitted."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from models.ensemble import Fit
from models.parts.trees import TreeOptions
from models.parts.trees import fit as fit_trees

PARTS: Final = ("gbt",)
DEFAULT_PARTS: Final = PARTS


class UnknownPartError(ValueError):
    """No part has this name."""


def recipe(names: Sequence[str], trees: TreeOptions) -> dict[str, Fit]:
    """How to fit each of the parts named. Raises UnknownPartError."""
    known: dict[str, Fit] = {"gbt": partial(fit_trees, trees=trees)}
    if not names:
        raise UnknownPartError("parts: there are none")
    for name in names:
        if name not in known:
            raise UnknownPartError(f"parts: {name!r} is none of {', '.join(known)}")
    return {name: known[name] for name in names}
