"""One element per event, for comparison: the same features, model and decisions as the scoring job.

In process mode the usual PyFlink job, as its documentation shows it: Kafka -> key_by(lambda) -> user features
-> key_by(lambda) -> terminal features, model, decision -> Kafka, a profile in a ValueState per key. In thread
mode the best that we know: source, keys and sink in the JVM, profiles cached beside the state that they are
written through to. Object reuse is on in both, and each Python stage has a slot of its own.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import numpy as np
from pydantic_settings import CliApp
from pyflink.common import Row, SimpleStringSchema, Types, WatermarkStrategy
from pyflink.datastream import DataStream, KeyedProcessFunction, KeyedStream, RuntimeContext
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.java_gateway import get_gateway

from events.decision import Decision, decision_id
from events.transaction import Transaction
from flink_jobs.scoring import Scoring
from flink_jobs.settings import ScoringSettings
from models.artefact import load_model
from models.scorer import Scorer
from models.signing import TRUSTED_KEYS, Keyring
from operators.records import BYTES
from state.columns import EVENT_TIME, field_values, transaction_array
from state.contract import CONTRACT_VERSION, DEFAULT_RISK_DELAY_MS, N_TERMINAL, N_USER, U
from state.layout import TERMINAL_PROFILE, USER_PROFILE
from state.terminal_kernel import terminal_kernel
from state.user_kernel import user_kernel

ARTEFACT = Path(__file__).resolve().parent.parent / "models" / "artefacts" / "first"
ROW = np.zeros(1, np.int64)
BETWEEN = Types.ROW([Types.STRING(), Types.PICKLED_BYTE_ARRAY()])
DECISION = Types.ROW_NAMED(["k", "v"], [BYTES, BYTES])


class Profiles:
    """Profiles as arrays [1] that can be written to, read once from the state of the current key."""

    def __init__(self, state: Any, dtype: np.dtype[np.void]) -> None:
        self._state = state
        self._dtype = dtype
        self._known: dict[str, Any] = {}

    def of(self, key: str) -> Any:
        own = self._known.get(key)
        if own is None:
            data = self._state.value()
            own = np.zeros(1, self._dtype) if data is None else np.frombuffer(bytearray(data), self._dtype)
            self._known[key] = own
        return own


class User(KeyedProcessFunction):
    """One transaction in JSON in; its terminal, and JSON and user features packed, out."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self._state = runtime_context.get_state(ValueStateDescriptor("user", Types.PICKLED_BYTE_ARRAY()))
        self._profiles = Profiles(self._state, USER_PROFILE)

    def process_element(self, value: bytes | str, ctx: Any) -> Iterator[Row]:
        transaction = msgspec.json.decode(value, type=Transaction)
        own = self._profiles.of(transaction.user_id)
        out, status = np.empty((1, N_USER), np.float32), np.empty(1, np.uint8)
        user_kernel(own, ROW, transaction_array([field_values(transaction)]), out, status)
        self._state.update(own.tobytes())
        payload = value.encode() if isinstance(value, str) else value
        yield Row(transaction.terminal_id or transaction.user_id, out.tobytes() + payload)


class Terminal(KeyedProcessFunction):
    """User features and JSON in; the key and value of the decision out."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self._state = runtime_context.get_state(ValueStateDescriptor("terminal", Types.PICKLED_BYTE_ARRAY()))
        self._profiles = Profiles(self._state, TERMINAL_PROFILE)
        keyring = Keyring.read(TRUSTED_KEYS)
        self._scorer = Scorer(load_model(ARTEFACT, keyring), keyring)

    def decide(self, packed: bytes) -> tuple[bytes, bytes]:
        t = msgspec.json.decode(packed[4 * N_USER :], type=Transaction)
        values = field_values(t)
        own = self._profiles.of(t.terminal_id or t.user_id)
        out = np.empty((1, N_TERMINAL), np.float32)
        user = np.frombuffer(packed[: 4 * N_USER], np.float32).reshape(1, -1)
        frauds = user[:, U.USER_FRAUDS].copy()
        terminal_kernel(own, ROW, transaction_array([values]), frauds, DEFAULT_RISK_DELAY_MS, out)
        self._state.update(own.tobytes())
        features = np.concatenate((user, out), axis=1)
        scores = self._scorer.score(features)
        decision = Decision(
            t.user_id, t.transaction_id, decision_id(t.user_id, t.transaction_id), values[EVENT_TIME],
            t.amount,
            self._scorer.verdicts(scores.score)[0], float(scores.score[0]), scores.model_version,
            CONTRACT_VERSION, features.tobytes(), values[EVENT_TIME], t.terminal_id,
        )  # fmt: skip
        return t.user_id.encode(), msgspec.json.encode(decision)

    def process_element(self, value: bytes, ctx: Any) -> Iterator[Row]:
        yield Row(*self.decide(value))


class UsualTerminal(Terminal):
    """The same, keyed by a lambda, so that the whole element comes in; the decision as text."""

    def process_element(self, value: Any, ctx: Any) -> Iterator[str]:
        yield self.decide(value[1])[1].decode()


def keyed(stream: DataStream, row_type: Any) -> KeyedStream:
    """Key by the first field in the JVM; the function receives the second."""
    selector = get_gateway().jvm.KeyByKeySelector()
    java = stream._j_data_stream.keyBy(selector, Types.ROW([Types.STRING()]).get_java_type_info())
    return KeyedStream(java, row_type, stream)


class PerEvent(Scoring):
    """The two jobs; both leave out what only the scoring job has: checks, repeats, side outputs, control."""

    def run(self) -> None:
        """Submit the one for the execution mode."""
        if self._settings.execution == "thread":
            self._best()
        else:
            self._usual()
        self._env.execute("per event")

    def _best(self) -> None:
        self._io.source(self._settings, self._tables)
        record = Types.ROW_NAMED(["k", "v"], [Types.STRING(), BYTES])
        records = self._tables.to_append_stream(self._tables.sql_query("SELECT k, v FROM records"), record)
        users = keyed(records, record).process(User(), BETWEEN).name("user")
        decided = keyed(users, BETWEEN).process(Terminal(), DECISION).name("terminal")
        decided.slot_sharing_group("terminal")
        self._tables.create_temporary_view("decided", decided)
        inserts = self._tables.create_statement_set()
        inserts.add_insert_sql(
            self._io.insert(self._settings, self._tables, "decisions", "SELECT k, v FROM decided")
        )
        inserts.attach_as_datastream()

    def _usual(self) -> None:
        settings = self._settings
        source = (
            KafkaSource.builder()
            .set_bootstrap_servers(settings.bootstrap)
            .set_topics(settings.topic("transactions"))
            .set_group_id("per-event")
            .set_starting_offsets(KafkaOffsetsInitializer.earliest())
            .set_value_only_deserializer(SimpleStringSchema())
            .build()
        )
        sink = (
            KafkaSink.builder()
            .set_bootstrap_servers(settings.bootstrap)
            .set_record_serializer(
                KafkaRecordSerializationSchema.builder()
                .set_topic(settings.topic("decisions"))
                .set_value_serialization_schema(SimpleStringSchema())
                .build()
            )
            .set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .build()
        )
        (
            self._env.from_source(source, WatermarkStrategy.no_watermarks(), "transactions")
            .key_by(lambda value: msgspec.json.decode(value, type=Transaction).user_id, Types.STRING())
            .process(User(), BETWEEN)
            .name("user")
            .key_by(lambda value: value[0], Types.STRING())
            .process(UsualTerminal(), Types.STRING())
            .name("terminal")
            .slot_sharing_group("terminal")
            .sink_to(sink)
        )


if __name__ == "__main__":
    # By name, not as part of this script, which would pickle the numba kernels with the functions.
    from benchmarks import per_event_job  # noqa: PLW0406

    submitted = CliApp.run(ScoringSettings)
    trusted = Keyring.read(submitted.trusted_keys, submitted.allow_unsigned)
    per_event_job.PerEvent(submitted, trusted).run()
