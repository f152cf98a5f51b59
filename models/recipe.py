"""Which parts an ensemble can have, and how each is fitted."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Final

from models.ensemble import Fit
from models.parts.trees import TreeOptions
from models.parts.trees import fit as fit_trees

PARTS: Final = ("gbt", "forest", "autoencoder", "sequence", "graph")
DEFAULT_PARTS: Final = ("gbt", "sequence")
"""Those that an ablation found to add something; see docs/adr/0005-parts.md."""


class UnknownPartError(ValueError):
    """No part has this name."""


def recipe(names: Sequence[str], trees: TreeOptions) -> dict[str, Fit]:
    """How to fit each of the parts named. Raises UnknownPartError."""
    if not names:
        raise UnknownPartError("parts: there are none")
    for name in names:
        if name not in PARTS:
            raise UnknownPartError(f"parts: {name!r} is none of {', '.join(PARTS)}")
    return {name: _fit(name, trees) for name in names}


def _fit(name: str, trees: TreeOptions) -> Fit:
    if name == "gbt":
        return partial(fit_trees, trees=trees)
    fit: Fit = import_module(f"models.parts.{name}").fit  # only when it is wanted: JAX takes seconds
    return fit
