"""Where the local stack lives and which ports it uses."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parent.parent

# A Unix socket's path may have 107 bytes, and supervisord appends its pid while it binds.
_LONGEST_HOME = 107 - len("/supervisor.sock.4194304")

Port = Annotated[int, Field(ge=1, le=65535)]


def _usable(path: Path) -> Path:
    path = path.expanduser().resolve()
    if any(character.isspace() for character in str(path)):
        raise ValueError(f"{str(path)!r} contains white space, which Flink's scripts do not support")
    return path


def _short(path: Path) -> Path:
    if len(str(path).encode()) > _LONGEST_HOME:
        raise ValueError(
            f"{str(path)!r} is longer than {_LONGEST_HOME} bytes, too long for a Unix socket in it"
        )
    return path


class Settings(BaseSettings):
    """Settings of the local stack, each read from the environment as ``FRAUDSTREAM_<NAME>``.

    Raises ``pydantic.ValidationError`` naming the setting when a value cannot be used.
    """

    model_config = SettingsConfigDict(env_prefix="FRAUDSTREAM_", frozen=True)

    home: Annotated[Path, AfterValidator(_usable), AfterValidator(_short)] = CHECKOUT / ".run"
    """Run directory: data, logs, rendered configuration."""

    downloads: Annotated[Path, AfterValidator(_usable)] = Field(
        default_factory=lambda values: values["home"] / "downloads"
    )
    """Jars and the built MongoDB-protocol server; may be shared by several run directories."""

    taskmanager_memory_mb: Annotated[int, Field(ge=1024)] = 1792
    """Memory of each TaskManager process in MiB; the heap that holds the profiles is about half of it."""

    managed_memory_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of it that is RocksDB's: a half suits where all jobs keep their state there."""

    taskmanagers: Annotated[int, Field(ge=1, le=64)] = 6
    """TaskManagers of one slot each: two for the scoring job, two for the learning job, one for the serving
    job, and a spare that takes over at once."""

    partitions: Annotated[int, Field(ge=1)] = 4
    """Partitions of the topics that are created."""

    kafka_port: Port = 9092
    kafka_controller_port: Port = 9093
    flink_port: Port = 8081
    flink_rpc_port: Port = 6123
    flink_metrics_port: Port = 9249
    """First Prometheus port; the JobManager and every TaskManager take one each."""
    redis_port: Port = 6379
    mongo_port: Port = 27017
    gateway_port: Port = 8000
    notify_metrics_port: Port = 9300

    gateway_keys: Annotated[Path, AfterValidator(_usable)] = Field(
        default_factory=lambda values: values["home"] / "gateway" / "keys"
    )
    """Keys of the gateway, the serving job and the notifier; made where they are missing."""

    notify_routes: Annotated[Path, AfterValidator(_usable)] = Field(
        default_factory=lambda values: values["home"] / "routes.toml"
    )
    """Where this file is, alerts are sent by it."""

    @property
    def kafka_bootstrap(self) -> str:
        return f"127.0.0.1:{self.kafka_port}"

    @property
    def flink_url(self) -> str:
        return f"http://127.0.0.1:{self.flink_port}"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def mongo_url(self) -> str:
        return f"mongodb://127.0.0.1:{self.mongo_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"
