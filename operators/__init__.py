"""The Python functions that run inside Flink: thin bodies between the engine and the jobs' wiring."""

import builtins
import sys


def _register_print() -> None:
    """Make the `print` that PyFlink's worker puts in place one that numba can find.

    In process mode the worker replaces the builtin by a function that is no attribute of its own module, and
    numba, which registers `print` by module and name, then fails to import.
    """
    module = sys.modules.get(builtins.print.__module__)
    name = builtins.print.__name__
    if module is not None and not hasattr(module, name):
        setattr(module, name, builtins.print)


_register_print()
