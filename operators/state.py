"""Keyed Flink state in the shape the engine reads."""

from pyflink.common import Time, Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, StateTtlConfig

from state.profiles import ProfileState


def profile_state(context: RuntimeContext, name: str, ttl_days: int) -> ProfileState:
    """MapState entity -> packed profile, which forgets entities not written for `ttl_days`.

    Forgotten entities leave with the next full snapshot. The background clean-up would start a second
    gateway in thread mode, and the incremental one walks the whole map of a shard at every access.
    """
    forget = (
        StateTtlConfig.new_builder(Time.days(ttl_days))
        .disable_cleanup_in_background()
        .cleanup_full_snapshot()
        .build()
    )
    descriptor = MapStateDescriptor(name, Types.STRING(), Types.PICKLED_BYTE_ARRAY())
    descriptor.enable_time_to_live(forget)
    state: ProfileState = context.get_map_state(descriptor)
    return state
