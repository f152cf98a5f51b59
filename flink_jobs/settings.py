"""Options of the jobs: from the command line, else the environment (prefix FRAUDSTREAM_)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.signing import TRUSTED_KEYS
from online_learning.gate import GateSettings
from online_learning.join import JoinSettings
from online_learning.trainer import TrainerSettings
from serving.gateway.folders import KEYS
from state.contract import DAY_MS, HOUR_MS, MAX_RISK_DELAY_MS

Start = Literal["earliest", "latest", "group"]
KEEPING = JoinSettings()
TRAINING = TrainerSettings()
FIRST_MODEL = Path(__file__).resolve().parent.parent / "models" / "artefacts" / "first"


class JobSettings(BaseSettings):
    """What every job that reads Kafka can be told."""

    model_config = SettingsConfigDict(
        env_prefix="FRAUDSTREAM_", cli_kebab_case=True, cli_implicit_flags=True, extra="ignore"
    )

    bootstrap: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers")
    kafka_properties: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="further Kafka client properties, NAME=VALUE,NAME=VALUE"
    )
    group: str = Field(description="Kafka consumer group")
    start: Start = Field(
        "group", description="where to begin without a savepoint; group falls back to earliest"
    )
    bounded: bool = Field(False, description="stop at the present end of the topics, nothing left behind")
    topic_prefix: str = Field("", description="put before every topic name")

    width: int = Field(1, ge=1, description="parallelism of the Python stages that are sharded")
    shards: int = Field(2, ge=1, le=128, description="shards; fixed for the life of a job's state")
    batch_ms: int = Field(5, ge=1, le=1000, description="length of a micro-batch in milliseconds")

    max_future_s: int = Field(3600, ge=0, description="refuse event times further ahead of the clock")
    checkpoint_s: float = Field(10, ge=0.1, description="seconds between checkpoints")
    execution: Literal["thread", "process"] = Field("thread", description="how Flink runs Python")
    state_backend: Literal["hashmap", "rocksdb"] = Field(
        "hashmap", description="rocksdb keeps state on disk, for more of it than fits into memory"
    )
    job_name: str = Field(description="name in the Flink web UI")

    @field_validator("kafka_properties", mode="before")
    @classmethod
    def _parse_properties(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair]
        if any(not equals or not name for name, equals, _ in pairs):
            raise ValueError("expected NAME=VALUE,NAME=VALUE")
        return {name.strip(): text.strip() for name, _, text in pairs}

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.shards % self.width:
            raise ValueError(f"width ({self.width}) must divide shards ({self.shards})")
        return self

    def topic(self, name: str) -> str:
        """Full name of a topic."""
        return self.topic_prefix + name


class ScoringSettings(JobSettings):
    """Real-time fraud scoring: transactions in, decisions out."""

    model_config = SettingsConfigDict(cli_prog_name="scoring")

    group: str = Field("fraudstream-scoring", description="Kafka consumer group")
    input: Path | None = Field(None, description="read JSON lines from this file or folder, not from Kafka")
    output: Path | None = Field(None, description="with input: folder that receives the results")

    width: int = Field(1, ge=1, description="parallelism of the two Python stages")
    shards: int = Field(
        2, ge=1, le=128, description="shards of users and of terminals; fixed for the life of a job's state"
    )
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
    explore_share: float = Field(
        0, ge=0, le=1, description="share of the transactions to approve that is reviewed by chance"
    )
    explore_seed: int = Field(
        0, ge=0, lt=1 << 64, description="which those are; keep it secret, give every job another"
    )
    drift_hours: float = Field(
        24, ge=1, le=168, description="length of the window that is held against the model's baseline"
    )
    state_ttl_days: int = Field(90, ge=1, description="forget entities without a transaction for so long")
    keep_decisions: bool = Field(
        True, description="after a failure, answer again what was answered before; off to score anew"
    )
    job_name: str = Field("fraudstream-scoring", description="name in the Flink web UI")

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
        return self


class LearningSettings(JobSettings):
    """Learning from labels: decisions and feedback in, labels and online weights out."""

    model_config = SettingsConfigDict(cli_prog_name="learning")

    group: str = Field("fraudstream-learning", description="Kafka consumer group")
    width: int = Field(1, ge=1, description="parallelism of the join; the trainer is always one")
    shards: int = Field(
        2, ge=1, le=128, description="shards of transactions; fixed for the life of a job's state"
    )
    batch_ms: int = Field(200, ge=1, le=1000, description="length of a micro-batch in milliseconds")

    keep_floor: float = Field(
        KEEPING.floor, ge=0, le=1, description="keep the features of every decision with this score or more"
    )
    keep_sample: float = Field(
        KEEPING.sample, ge=0, le=1, description="and of this share of the rest, chosen by a hash"
    )
    keep_seed: int = Field(KEEPING.seed, ge=0, description="of that hash")
    presume_sample: float = Field(
        0.01, ge=0, le=1, description="presume this share of what is approved to be legitimate, to learn from"
    )
    explore_share: float = Field(
        0.0, ge=0, le=1, description="what the scoring job sends to review by chance, as told there"
    )
    remember_rest: bool = Field(
        True, description="keep of all other decisions what a label needs; off, and they are unknown"
    )
    decision_ttl_days: int = Field(100, ge=1, description="forget decisions after so long")
    waiting_hours: float = Field(
        KEEPING.waiting_ms / HOUR_MS, ge=0, description="feedback waits so long for its transaction"
    )
    max_waiting: int = Field(
        KEEPING.max_waiting, ge=1, description="at most so much feedback waits in each shard"
    )

    labels_per_day: float = Field(
        TRAINING.labels_per_day,
        gt=0,
        description="how many labels of one analyst, or of all customers, count",
    )
    min_frauds: int = Field(TRAINING.gate.min_frauds, ge=1, description="frauds that a promotion takes")
    min_legitimate: int = Field(
        TRAINING.gate.min_legitimate, ge=1, description="legitimate labels that a promotion takes"
    )
    gate_error: float = Field(
        TRAINING.gate.error, gt=0, lt=1, description="probability with which what is not better is promoted"
    )
    job_name: str = Field("fraudstream-learning", description="name in the Flink web UI")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bounded:
            if self.width != 1:
                raise ValueError("a bounded run has one shard, so its width is 1")
            self.shards = 1  # what one shard sends again to another would lie behind the end
        return self

    @property
    def trainer(self) -> TrainerSettings:
        """What the trainer needs of them."""
        gate = GateSettings(
            min_frauds=self.min_frauds, min_legitimate=self.min_legitimate, error=self.gate_error
        )
        return TrainerSettings(gate=gate, labels_per_day=self.labels_per_day)

    @property
    def join(self) -> JoinSettings:
        """What the join needs of them."""
        return JoinSettings(
            floor=self.keep_floor,
            sample=self.keep_sample,
            explore_share=self.explore_share,
            presume=self.presume_sample,
            seed=self.keep_seed,
            remember_rest=self.remember_rest,
            waiting_ms=int(self.waiting_hours * HOUR_MS),
            max_waiting=self.max_waiting,
            max_future_ms=self.max_future_s * 1000,
            sole=self.shards == 1,
        )


class ServingSettings(JobSettings):
    """Serving people: decisions, labels and the learner's audit into MongoDB and Redis, alerts out."""

    model_config = SettingsConfigDict(cli_prog_name="serving")

    group: str = Field("fraudstream-serving", description="Kafka consumer group")
    batch_ms: int = Field(200, ge=1, le=1000, description="length of a micro-batch in milliseconds")

    mongo_url: SecretStr = Field(
        SecretStr("mongodb://127.0.0.1:27017"), description="MongoDB; give a password by the environment"
    )
    mongo_database: str = Field("fraudstream", min_length=1, max_length=63, description="database in it")
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="Redis; give a password by the environment"
    )
    gateway_keys: Path = Field(
        KEYS, description="folder of the gateway's keys: the secrets in it hide users in the stores"
    )
    models: list[Path] = Field(
        [FIRST_MODEL], description="artefacts whose decisions are explained, a list in JSON"
    )
    trusted_keys: Path = Field(
        TRUSTED_KEYS, description="folder of the public keys, *.pub, whose artefacts are loaded"
    )
    allow_unsigned: bool = Field(
        False, description="load artefacts without a signature too; for development only"
    )
    state_ttl_days: int = Field(90, ge=1, description="forget users without a decision for so long")

    recent_s: int = Field(300, ge=1, description="seconds that Redis keeps each decision")
    user_days: int = Field(30, ge=1, description="days that it keeps a user's risk")
    count_minutes: int = Field(1_500, ge=1, description="minutes that it keeps counts by minute")
    feed_length: int = Field(10_000, ge=1, description="decisions in the live feed, about")
    ranked_users: int = Field(10_000, ge=1, description="users in the ranking by risk")
    job_name: str = Field("fraudstream-serving", description="name in the Flink web UI")
