"""Key values that spread evenly."""

from itertools import count

from pyflink.java_gateway import get_gateway


def shard_keys(shards: int) -> tuple[int, ...]:
    """One key value per shard, such that with maxParallelism = shards shard i falls into key group i.

    Any parallelism that divides `shards` is then perfectly balanced. Two hashes must agree: that of the
    row that keyBy extracts for the Python stages and that of the binary row of the SQL window.
    """
    jvm = get_gateway().jvm
    assignment = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment
    row_class = jvm.org.apache.flink.types.Row
    found: dict[int, int] = {}
    for value in count():
        row = row_class(1)
        row.setField(0, value)
        binary = jvm.org.apache.flink.table.data.binary.BinaryRowData(1)
        writer = jvm.org.apache.flink.table.data.writer.BinaryRowWriter(binary)
        writer.writeInt(0, value)
        writer.complete()
        group = assignment.assignToKeyGroup(row, shards)
        if group == assignment.assignToKeyGroup(binary, shards):
            found.setdefault(group, value)
        if len(found) == shards:
            return tuple(found[group] for group in range(shards))
    raise AssertionError("unreachable")
