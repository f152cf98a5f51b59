"""Settings of the gateway, each read from the environment as ``FRAUDSTREAM_<NAME>``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.registry import ARTEFACTS
from models.signing import TRUSTED_KEYS
from serving.gateway.folders import KEYS

Bytes = Annotated[int, Field(ge=1024)]
Seconds = Annotated[float, Field(gt=0)]


class GatewaySettings(BaseSettings):
    """What the gateway can be told. Raises ``pydantic.ValidationError`` naming what is no good."""

    model_config = SettingsConfigDict(env_prefix="FRAUDSTREAM_", frozen=True, extra="ignore")

    bootstrap: str = "127.0.0.1:9092"
    kafka_properties: dict[str, str] = {}
    """Further librdkafka properties; in the environment a JSON object."""
    topic_prefix: str = ""
    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_timeout_s: Seconds = 0.25
    mongo_url: str = "mongodb://127.0.0.1:27017"
    mongo_database: Annotated[str, Field(min_length=1, max_length=63)] = "fraudstream"

    gateway_keys: Path = KEYS
    """Folder with `tokens/`, `clients/` and the secrets, as `fraudstream keys init` makes it."""
    gateway_audit: Path = Path(".run/gateway/audit.jsonl")
    registry: Path = ARTEFACTS
    trusted_keys: Path = TRUSTED_KEYS
    allow_unsigned: bool = False

    gateway_max_body: Bytes = 1 << 20
    gateway_max_stream: Bytes = 256 << 20
    """Bytes of an NDJSON body that is read as it comes: neither signed nor under an Idempotency-Key."""
    gateway_body_idle_s: Seconds = 10.0
    """How long the next part of a body may take."""
    gateway_body_s: Seconds = 300.0
    """How long a whole body may take."""
    gateway_ack_s: Seconds = 5.0
    """How long Kafka may take to acknowledge."""
    gateway_score_ms: Annotated[int, Field(ge=1, le=60_000)] = 100
    """Budget of a synchronous score, after which the answer is degraded."""
    gateway_decisions: Annotated[int, Field(ge=100)] = 50_000
    """How many decisions, the newest, are remembered; some 1 KB each."""
    gateway_query_s: Seconds = 2.0
    """How long a query of the stores may take."""
    gateway_live_s: Seconds = 300.0
    """How long a live stream lasts, after which its client has to prove again who it is."""
    gateway_ping_s: Seconds = 15.0
    """After how long a live stream says that there is nothing."""
    gateway_hosts: list[str] = []
    """Host headers that are taken, without port; empty takes all."""
    gateway_origins: list[str] = []
    """Origins whose pages may read answers (CORS); empty lets none."""
    gateway_console: bool = True
    """Whether the analyst console is served too, under `/console`."""
    console_session_s: Annotated[int, Field(ge=60, le=86_400)] = 28_800
    """How long somebody stays signed in to the console."""
    console_undo_s: Annotated[float, Field(ge=0, le=60)] = 5.0
    """How long a verdict waits in the console before it is sent, so that it can be taken back."""
    max_future_s: Annotated[int, Field(ge=0)] = 3600

    @property
    def kafka(self) -> dict[str, str]:
        """Configuration of a librdkafka client."""
        return {"bootstrap.servers": self.bootstrap, "log_level": "0", **self.kafka_properties}
