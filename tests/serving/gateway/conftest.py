from collections.abc import Iterator

import pytest

from stack.cluster import Cluster, isolated_stack


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """A broker alone."""
    with isolated_stack(names=("kafka",)) as running:
        yield running
