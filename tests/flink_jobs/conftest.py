import itertools
from collections.abc import Iterator

import pytest

from stack.cluster import Cluster, isolated_stack

_prefixes = (f"t{n}." for n in itertools.count())


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One stack for all tests: four TaskManagers for a job two wide, and a spare."""
    with isolated_stack(taskmanagers=5) as running:
        yield running


@pytest.fixture
def prefix(cluster: Cluster) -> Iterator[str]:
    """Topics of the test's own. Jobs that a failing test leaves shall not hold the slots of the next."""
    name = next(_prefixes)
    cluster.topics(name)
    yield name
    for job in cluster.rest("/jobs")["jobs"]:
        cluster.cancel(job["id"])
