"""What the graphs of the jobs are built of: configuration, micro-batches, and streams without Python hops."""

from collections.abc import Sequence

from pyflink.common import Configuration, Types
from pyflink.common.typeinfo import TypeInformation
from pyflink.datastream import DataStream, KeyedStream, OutputTag
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

from flink_jobs.settings import JobSettings
from operators.records import BYTES

RAW_BATCH = Types.ROW(
    [Types.OBJECT_ARRAY(BYTES), Types.OBJECT_ARRAY(Types.STRING()), Types.OBJECT_ARRAY(Types.LONG())]
)
"""Values, keys and positions of the records of one shard."""
KEYED_BATCH = Types.ROW_NAMED(["shard", "batch"], [Types.INT(), RAW_BATCH])


def configuration(settings: JobSettings) -> Configuration:
    """What a job needs of Flink wherever it runs; the rest is up to the cluster."""
    config = Configuration()
    config.set_string("pipeline.object-reuse", "true")
    config.set_string("pipeline.max-parallelism", str(settings.shards))
    config.set_string("parallelism.default", str(settings.width))
    # Short against a micro-batch, and no shorter: each flush wakes a thread of every task.
    config.set_string("execution.buffer-timeout.interval", f"{max(2, settings.batch_ms // 10)} ms")
    config.set_string("python.execution-mode", settings.execution)
    config.set_string("table.exec.uid.generation", "ALWAYS")
    config.set_string("state.backend.type", settings.state_backend)
    # RocksDB uploads only what is new; to the heap backend the word means nothing.
    config.set_string("execution.checkpointing.incremental", str(settings.state_backend == "rocksdb").lower())
    config.set_string("execution.checkpointing.interval", f"{int(settings.checkpoint_s * 1000)} ms")
    return config


def micro_batches(
    tables: StreamTableEnvironment, name: str, records: str, shard_keys: Sequence[int], batch_ms: int
) -> KeyedStream:
    """Records grouped per shard over a short window, as a stream of RAW_BATCH keyed by shard.

    records: a query for entity, k, v, source_position and batch_time; the entity, which may be null, chooses
    the shard. name: of the view that is made.
    """
    shards = len(shard_keys)
    shard = f"MOD(MOD(HASH_CODE(COALESCE(entity, '')), {shards}) + {shards}, {shards}) + 1"
    keys = ", ".join(map(str, shard_keys))
    tables.execute_sql(
        f"CREATE TEMPORARY VIEW {name} AS SELECT ARRAY[{keys}][{shard}] AS shard, "
        f"k, v, source_position, batch_time FROM ({records})"
    )
    length = f"INTERVAL '{batch_ms / 1000}' SECOND"
    batches = tables.sql_query(
        "SELECT shard, ROW(ARRAY_AGG(v), ARRAY_AGG(k), ARRAY_AGG(source_position)) AS batch FROM "
        f"TABLE(TUMBLE(TABLE {name}, DESCRIPTOR(batch_time), {length})) "
        "GROUP BY shard, window_start, window_end"
    )
    return keyed(at_once(tables.to_append_stream(batches, KEYED_BATCH)), KEYED_BATCH)


def keyed(stream: DataStream, row_type: TypeInformation) -> KeyedStream:
    """Key by the first field; the function receives the second. `key_by(lambda)` would add a Python hop."""
    selector = get_gateway().jvm.KeyByKeySelector()
    java = stream._j_data_stream.keyBy(selector, Types.ROW([Types.INT()]).get_java_type_info())
    return KeyedStream(java, row_type, stream)


def at_once(stream: DataStream) -> DataStream:
    """Send every element on as it comes: it is a batch already, and waiting for more would only delay it."""
    stream._j_data_stream.getTransformation().setBufferTimeout(0)
    return stream


def side_output(stream: DataStream, tag: OutputTag) -> DataStream:
    """A side output as it is; `get_side_output` would add a Python map."""
    return DataStream(stream._j_data_stream.getSideOutput(tag.get_java_output_tag()))
