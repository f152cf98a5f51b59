"""Options of the scoring job: from the command line, else the environment (prefix FRAUDSTREAM_)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.signing import TRUSTED_KEYS
from state.contract import DAY_MS, MAX_RISK_DELAY_MS

FIRST_MODEL = Path(__file__).resolve().parent.parent / "models" / "artefacts" / "first"


class ScoringSettings(BaseSettings):
    """Real-time fraud scoring: transactions in, decisions out."""

    model_config = SettingsConfigDict(
        env_prefix="FRAUDSTREAM_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="scoring",
        extra="ignore",
    )

    bootstrap: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers")
    kafka_properties: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="further Kafka client properties, NAME=VALUE,NAME=VALUE"
    )
    group: str = Field("fraudstream-scoring", description="Kafka consumer group")
    start: Literal["earliest", "latest", "group"] = Field(
        "group", description="where to begin without a savepoint; group falls back to earliest"
    )
    bounded: bool = Field(False, description="stop at the present end of the topics, nothing left behind")
    topic_prefix: str = Field("", description="put before every topic name")

    input: Path | None = Field(None, description="read JSON lines from this file or folder, not from Kafka")
    output: Path | None = Field(None, description="with input: folder that receives the results")

    width: int = Field(1, ge=1, description="parallelism of the two Python stages")
    shards: int = Field(
        2, ge=1, le=128, description="shards of users and of terminals; fixed for the life of a job's state"
    )
    batch_ms: int = Field(5, ge=1, le=1000, description="length of a micro-batch in milliseconds")
    key_from: Literal["key", "payload"] = Field(
        "key", description="payload: shard by the JSON field user_id, for producers that set no key"
    )

    model: Path | None = Field(FIRST_MODEL, description="artefact to start with; '' for none")
    trusted_keys: Path = Field(
        TRUSTED_KEYS, description="folder of the public keys, *.pub, whose artefacts are loaded"
    )
    allow_unsigned: bool = Field(
        False, description="load artefacts without a signature too; for development only"
    )
    risk_delay_days: float = Field(
        7, ge=0, le=MAX_RISK_DELAY_MS / DAY_MS, description="how long ago the terminal's risk windows end"
    )
    alerts_per_day: float | None = Field(
        None, ge=0, description="move the review threshold so that about so many alerts a day come out"
    )
    drift_hours: float = Field(
        24, ge=1, le=168, description="length of the window that is held against the model's baseline"
    )
    max_future_s: int = Field(3600, ge=0, description="refuse event times further ahead of the clock")
    state_ttl_days: int = Field(90, ge=1, description="forget entities without a transaction for so long")
    checkpoint_s: float = Field(10, ge=0.1, description="seconds between checkpoints")
    execution: Literal["thread", "process"] = Field("thread", description="how Flink runs Python")
    keep_decisions: bool = Field(
        True, description="after a failure, answer again what was answered before; off to score anew"
    )
    job_name: str = Field("fraudstream-scoring", description="name in the Flink web UI")

    @field_validator("kafka_properties", mode="before")
    @classmethod
    def _parse_properties(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair]
        if any(not equals or not name for name, equals, _ in pairs):
            raise ValueError("expected NAME=VALUE,NAME=VALUE")
        return {name.strip(): text.strip() for name, _, text in pairs}

    @field_validator("model", mode="before")
    @classmethod
    def _no_model(cls, value: Any) -> Any:
        return None if value == "" else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("input and output go together")
        if self.input is not None and not self.input.exists():
            raise ValueError(f"input: no such file or folder: {self.input}")
        if self.input is not None:
            self.key_from = "payload"  # lines of a file have no key
        if self.shards % self.width:
            raise ValueError(f"width ({self.width}) must divide shards ({self.shards})")
        return self

    def topic(self, name: str) -> str:
        """Full name of a topic."""
        return self.topic_prefix + name
