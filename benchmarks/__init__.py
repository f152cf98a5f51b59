"""Side-by-side measurements; `make bench` runs them all and writes docs/benchmarks.md."""

import operators as operators  # first in a Python worker of Flink: numba cannot be imported before it
