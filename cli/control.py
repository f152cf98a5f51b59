"""What the commands share that tell running jobs something.

Everything is checked here as the job checks it; what the job refuses nevertheless becomes a dead letter with
the reason control_refused.
"""

from typing import Annotated, TypeVar

import typer

from cli import kafka
from cli.terminal import UserError
from events.codec import Decoder, Invalid
from events.control import ModelUpdate, OnlineCommand, Rule

Control = TypeVar("Control", ModelUpdate, OnlineCommand, Rule)
By = Annotated[str | None, typer.Option(help="Who issues it; by default the login name.", show_default=False)]


def checked(payload: bytes, record_type: type[Control]) -> Control:
    """The record in a payload, read as the job reads it. Raises UserError where the job would refuse it."""
    (record,) = Decoder(record_type).decode([payload])
    if isinstance(record, Invalid):
        raise UserError(str(record))
    return record


def in_force(
    config: dict[str, str], topic: str, slot: str, timeout_s: float | None = None
) -> ModelUpdate | None:
    """The update that holds for a slot; records that jobs refuse as unreadable change nothing."""
    decoder, current = Decoder(ModelUpdate), None
    for value in kafka.values(config, topic, slot, timeout_s):
        if value is None:
            current = None
            continue
        (record,) = decoder.decode([value])
        if isinstance(record, ModelUpdate) and record.slot == slot:
            current = record
    return current
