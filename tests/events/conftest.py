"""Set-up shared by the tests of the wire contract."""

import pytest

from events.scan import scan


@pytest.fixture(autouse=True, scope="session")
def _compiled() -> None:
    """Compile the scan before any test is timed: without numba's cache that takes seconds."""
    scan([b"{}"])
