from collections.abc import Iterator

import pytest
from redis import Redis

from tests.serving.servers import Server


@pytest.fixture(scope="module")
def restartable_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"), "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def restartable_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mongo"), "mongo")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"), "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_server(redis_session: Server) -> Server:
    """A Redis that is empty, which a test may also freeze or end."""
    Redis.from_url(redis_session.url).flushall()
    return redis_session
