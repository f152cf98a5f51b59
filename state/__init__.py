"""The engine: packed profiles of users and terminals, and the kernels that read and fold them. No JVM."""

import hashlib
import os
from pathlib import Path

import numba


def _kernel_cache() -> Path:
    """A cache folder of its own for each state of the sources.

    Numba notices a change of the file a kernel stands in, but not of the functions and constants that the
    kernel takes from other files: a stale kernel would compute other features than the source says.
    """
    sources = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(source.read_bytes())
    root = os.environ.get("NUMBA_CACHE_DIR") or Path.home() / ".cache" / "fraudstream"
    return Path(root) / f"kernels-{sources.hexdigest()[:16]}"


setattr(numba.config, "CACHE_DIR", str(_kernel_cache()))  # noqa: B010 - made at run time, unknown to mypy
