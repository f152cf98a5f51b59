"""Keyed Flink state in the shape the engine reads."""

from typing import Any

from pyflink.common import Time, Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapState, MapStateDescriptor, StateTtlConfig, ValueStateDescriptor

from operators.task import java_context
from state.profiles import ProfileState

BYTES = Types.PICKLED_BYTE_ARRAY()


def profile_state(context: RuntimeContext, name: str, ttl_days: int) -> ProfileState:
    """State entity -> packed profile, which forgets entities not written for `ttl_days`.

    In thread mode every entity is an entry of its own in the state backend; see EntityState. In process mode
    it is a MapState, as nothing else is at hand there.
    """
    if java_context(context) is None:
        state: ProfileState = expiring_map(context, name, ttl_days)
        return state
    descriptor = ValueStateDescriptor(name, BYTES)
    descriptor.enable_time_to_live(_forget_after(ttl_days))
    return EntityState(context, descriptor)


def expiring_map(context: RuntimeContext, name: str, ttl_days: int) -> MapState:
    """MapState str -> bytes, which forgets entries not written for `ttl_days`; for few, see EntityState."""
    descriptor = MapStateDescriptor(name, Types.STRING(), BYTES)
    descriptor.enable_time_to_live(_forget_after(ttl_days))
    return context.get_map_state(descriptor)


class EntityState:
    """A value of bytes per entity under the current key, the entity being the namespace of the value.

    To the heap backend a whole MapState is one value. After each checkpoint it copies a value before it is
    touched again, so a map of all entities of a shard would stop the shard for as long as copying them takes
    (measured: 300 ms for 100,000 users), every time. PyFlink has no call that sets a namespace, so this goes
    to the Java state. To RocksDB the namespace is a part of the key.
    """

    def __init__(self, context: Any, descriptor: ValueStateDescriptor) -> None:
        # Both exist only inside a TaskManager that runs Python in its own process.
        from pemja import findClass  # noqa: PLC0415
        from pyflink.fn_execution.embedded.java_utils import to_java_state_descriptor  # noqa: PLC0415

        strings = findClass("org.apache.flink.api.common.typeutils.base.StringSerializer").INSTANCE
        backend = context.get_keyed_state_backend()._keyed_state_backend
        state = backend.getPartitionedState("", strings, to_java_state_descriptor(descriptor))
        # Methods are looked up once: from Java, every look-up costs as much as the call.
        self._select, self._read, self._update = state.setCurrentNamespace, state.value, state.update

    def get(self, key: str) -> bytes | None:
        """The entity's value, None where it has none or it is forgotten."""
        self._select(key)
        value: bytes | None = self._read()
        return value

    def put(self, key: str, value: bytes) -> None:
        """Set the entity's value."""
        self._select(key)
        self._update(value)


def _forget_after(days: int) -> StateTtlConfig:
    """Forgotten entries leave with the next full snapshot; RocksDB, taking none, drops them as it compacts.

    The background clean-up would start a second gateway in thread mode, and so would the default of the last
    argument, which only Java reads; the incremental clean-up costs at every access.
    """
    return (
        StateTtlConfig.new_builder(Time.days(days))
        .disable_cleanup_in_background()
        .cleanup_full_snapshot()
        .cleanup_in_rocksdb_compact_filter(1000, Time.days(30))
        .build()
    )
