"""Health checks: each asks the service itself, not the process table."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient
from pymongo.errors import PyMongoError

_TIMEOUT_SECONDS = 2.0
# The services are on this machine: a proxy from the environment must not come between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Health:
    """Whether a program does its work, and in a few words what it said or why not."""

    ok: bool
    detail: str


Check = Callable[[], Health]


def kafka(bootstrap: str) -> Health:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        metadata = admin.list_topics(timeout=_TIMEOUT_SECONDS)
    except KafkaException as error:
        cause = error.args[0]
        return Health(False, cause.str() if isinstance(cause, KafkaError) else cause)
    topics = [name for name in metadata.topics if not name.startswith("__")]
    return Health(bool(metadata.brokers), f"{len(metadata.brokers)} broker, {len(topics)} topics")


def jobmanager(url: str) -> Health:
    try:
        overview = _get_json(f"{url}/overview")
    except (OSError, ValueError) as error:
        return Health(False, str(error))
    return Health(
        True,
        f"Flink {overview['flink-version']}, {overview['taskmanagers']} TaskManagers, "
        f"{overview['slots-available']} of {overview['slots-total']} slots free, "
        f"{overview['jobs-running']} jobs running",
    )


def taskmanager(url: str, resource_id: str) -> Health:
    try:
        registered = _get_json(f"{url}/taskmanagers")["taskmanagers"]
    except (OSError, ValueError) as error:
        return Health(False, str(error))
    for entry in registered:
        # A TaskManager reports its slots a moment after its name; only then can a job use it.
        if entry["id"] == resource_id and entry["slotsNumber"]:
            return Health(True, f"registered, {entry['freeSlots']} of {entry['slotsNumber']} slots free")
    return Health(False, "not registered with the JobManager")


def redis_server(port: int) -> Health:
    client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=_TIMEOUT_SECONDS)
    try:
        client.ping()
        # The client's type is shared with the asynchronous one.
        version = cast(dict[str, Any], client.info("server"))["redis_version"]
    except redis.RedisError as error:
        return Health(False, str(error))
    finally:
        client.close()
    return Health(True, f"Redis {version}")


def mongo(url: str) -> Health:
    client: MongoClient[dict[str, Any]] = MongoClient(
        url, serverSelectionTimeoutMS=int(_TIMEOUT_SECONDS * 1000), directConnection=True
    )
    try:
        client.admin.command("hello")
        build = client.admin.command("buildInfo")
    except PyMongoError as error:
        return Health(False, str(error).split(" (configured")[0])
    finally:
        client.close()
    return Health(True, f"MongoDB protocol {build['version']}")


def gateway(url: str) -> Health:
    """Ready once it reaches Kafka."""
    try:
        state = _get_json(f"{url}/ready")
    except urllib.error.HTTPError as error:
        return Health(False, f"answers {error.code}")
    except (OSError, ValueError) as error:
        return Health(False, str(error))
    return Health(True, f"ready, Redis {'answers' if state['redis'] else 'is away'}")


def metrics(url: str) -> Health:
    try:
        with _OPENER.open(url, timeout=_TIMEOUT_SECONDS) as response:
            response.read()
    except OSError as error:
        return Health(False, str(error))
    return Health(True, "serves metrics")


def _get_json(url: str) -> Any:
    with _OPENER.open(url, timeout=_TIMEOUT_SECONDS) as response:
        return json.load(response)
