"""The check of whatever running jobs are told.

Everything is checked here as the job checks it; what the job refuses nevertheless becomes a dead letter with
the reason control_refused.
"""

from typing import TypeVar

from cli.terminal import UserError
from events.codec import Decoder, Invalid
from events.control import ModelUpdate, Rule

Control = TypeVar("Control", ModelUpdate, Rule)


def checked(payload: bytes, record_type: type[Control]) -> Control:
    """The record in a payload, read as the job reads it. Raises UserError where the job would refuse it."""
    (record,) = Decoder(record_type).decode([payload])
    if isinstance(record, Invalid):
        field = f"{record.field}: " if record.field else ""
        raise UserError(f"{field}{record.detail} ({record.reason})")
    return record
