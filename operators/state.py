"""Keyed Flink state in the shape the engine reads."""

from pyflink.common import Time, Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, StateTtlConfig

from state.profiles import ProfileState


def profile_state(context: RuntimeContext, name: str, ttl_days: int) -> ProfileState:
    """MapState entity -> packed profile, which forgets entities not written for `ttl_days`.

    The default background clean-up starts a second gateway in thread mode, hence the incremental one.
    """
    forget = (
        StateTtlConfig.new_builder(Time.days(ttl_days))
        .disable_cleanup_in_background()
        .cleanup_incrementally(10, False)
        .build()
    )
    descriptor = MapStateDescriptor(name, Types.STRING(), Types.PICKLED_BYTE_ARRAY())
    descriptor.enable_time_to_live(forget)
    return context.get_map_state(descriptor)
