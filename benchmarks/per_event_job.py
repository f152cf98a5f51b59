"""The usual PyFlink job, for comparison: one element per event, the same features, model and decisions.

Kafka -> key by user -> user features -> key by terminal -> terminal features, model, decision -> Kafka;
each user's and each terminal's profile in a ValueState of its own, written as its documentation shows it.
Object reuse is on, as in the job that it is compared with, and each Python stage has a slot of its own.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import numpy as np
from pyflink.common import Configuration, SimpleStringSchema, Types, WatermarkStrategy
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import ValueStateDescriptor

from events.decision import Decision
from events.transaction import Transaction
from models.artefact import load_model
from models.scorer import Scorer
from operators.decision_log import decision_id
from state.columns import EVENT_TIME, field_values, transaction_array
from state.contract import CONTRACT_VERSION, DEFAULT_RISK_DELAY_MS, N_TERMINAL, N_USER
from state.layout import TERMINAL_PROFILE, USER_PROFILE
from state.terminal_kernel import terminal_kernel
from state.user_kernel import user_kernel

ARTEFACT = Path(__file__).resolve().parent.parent / "models" / "artefacts" / "first"
decode = msgspec.json.Decoder(Transaction).decode
ROW = np.zeros(1, np.int64)


def profile(state: Any, dtype: np.dtype[np.void]) -> Any:
    """The profile of the current key, as an array [1] that can be written to."""
    data = state.value()
    return np.zeros(1, dtype) if data is None else np.frombuffer(bytearray(data), dtype)


class User(KeyedProcessFunction):
    """One transaction in JSON in; its terminal, JSON and user features out."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self._state = runtime_context.get_state(ValueStateDescriptor("user", Types.PICKLED_BYTE_ARRAY()))

    def process_element(self, value: str, ctx: Any) -> Iterator[Any]:
        transaction = decode(value)
        array = transaction_array([field_values(transaction)])
        own = profile(self._state, USER_PROFILE)
        out, status = np.empty((1, N_USER), np.float32), np.empty(1, np.uint8)
        user_kernel(own, ROW, array, out, status)
        self._state.update(own.tobytes())
        yield transaction.terminal_id or transaction.user_id, value, out.tobytes()


class Terminal(KeyedProcessFunction):
    """Terminal, JSON and user features in; the decision out."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self._state = runtime_context.get_state(ValueStateDescriptor("terminal", Types.PICKLED_BYTE_ARRAY()))
        self._scorer = Scorer(load_model(ARTEFACT))

    def process_element(self, value: Any, ctx: Any) -> Iterator[str]:
        t = decode(value[1])
        values = field_values(t)
        own = profile(self._state, TERMINAL_PROFILE)
        out = np.empty((1, N_TERMINAL), np.float32)
        terminal_kernel(own, ROW, transaction_array([values]), DEFAULT_RISK_DELAY_MS, out)
        self._state.update(own.tobytes())
        features = np.concatenate((np.frombuffer(value[2], np.float32).reshape(1, -1), out), axis=1)
        scores = self._scorer.score(features)
        decision = Decision(
            t.user_id, t.transaction_id, decision_id(t.user_id, t.transaction_id), values[EVENT_TIME],
            t.amount,
            self._scorer.verdicts(scores.score)[0], float(scores.score[0]), scores.model_version,
            CONTRACT_VERSION, features.tobytes(), values[EVENT_TIME], t.terminal_id,
        )  # fmt: skip
        yield msgspec.json.encode(decision).decode()


def main() -> None:
    """Submit it: flink run -d -py benchmarks/per_event_job.py --bootstrap HOST:PORT --execution thread."""
    options = argparse.ArgumentParser()
    options.add_argument("--bootstrap", required=True)
    options.add_argument("--topic-prefix", default="")
    options.add_argument("--execution", choices=["thread", "process"], required=True)
    chosen = options.parse_args()

    config = Configuration()
    config.set_string("python.execution-mode", chosen.execution)
    config.set_string("pipeline.object-reuse", "true")
    env = StreamExecutionEnvironment.get_execution_environment(config)
    env.set_parallelism(1)
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(chosen.bootstrap)
        .set_topics(f"{chosen.topic_prefix}transactions")
        .set_group_id("per-event")
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers(chosen.bootstrap)
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(f"{chosen.topic_prefix}decisions")
            .set_value_serialization_schema(SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
        .build()
    )
    between = Types.TUPLE([Types.STRING(), Types.STRING(), Types.PICKLED_BYTE_ARRAY()])
    (
        env.from_source(source, WatermarkStrategy.no_watermarks(), "transactions")
        .key_by(lambda value: decode(value).user_id, Types.STRING())
        .process(User(), between)
        .name("user")
        .key_by(lambda value: value[0], Types.STRING())
        .process(Terminal(), Types.STRING())
        .name("terminal")
        .slot_sharing_group("terminal")
        .sink_to(sink)
    )
    env.execute("per-event")


if __name__ == "__main__":
    main()
