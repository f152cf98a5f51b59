"""What steers the jobs, as their topics hold it."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec

from events.types import epoch_ms
from models import registry
from models.registry import RegistryError
from serving import control
from serving.console.console import Console
from serving.control import Held
from serving.errors import NotFoundError

KEPT_S: Final = 5.0
"""Reading a topic whole costs a consumer each time."""


class ModelVersion(msgspec.Struct, frozen=True):
    """An artefact of the registry. problem: why no job would load it."""

    version: str
    created_at: str
    signed_by: str | None
    problem: str | None
    is_promoted: bool


class SafeMode(msgspec.Struct, frozen=True):
    """Whether the jobs are told to decide without their models, and in words why."""

    is_on: bool
    told: str


class Standing(msgspec.Struct, frozen=True):
    """What is promoted, and thresholds that were set over those of the model."""

    artefact: str | None
    issued_by: str | None
    thresholds: str | None
    previous: int

    def facts(self) -> list[tuple[str, str]]:
        return [
            ("Promoted artefact", self.artefact or "none; jobs run what they were started with"),
            ("Promoted by", self.issued_by or "—"),
            ("Thresholds set", self.thresholds or "none; those of the model"),
        ]


async def standing(console: Console) -> Standing:
    """Raises BrokerError."""

    def read() -> Standing:
        topics = console.services.topics
        model, thresholds = control.in_force(topics, "model"), control.in_force(topics, "thresholds")
        given = thresholds.thresholds if thresholds is not None else None
        return Standing(
            artefact=None if model is None else str(model.artefact).rpartition("/")[2],
            issued_by=None if model is None else model.issued_by,
            thresholds=None if given is None else f"review {given.review:g}, block {given.block:g}",
            previous=0 if model is None else len(model.previous),
        )

    return await console.snapshots.get("standing", lambda: asyncio.to_thread(read), KEPT_S)


async def safe_mode(console: Console) -> SafeMode:
    """Raises BrokerError."""

    def read() -> SafeMode:
        update = control.safe_mode(console.services.topics)
        if update is None:
            return SafeMode(False, "Nobody has switched safe mode on.")
        at = datetime.fromtimestamp(epoch_ms(update.issued_at) / 1000, UTC)
        return SafeMode(True, f"{update.reason} ({update.issued_by}, {at:%d %b %H:%M} UTC)")

    return await console.snapshots.get("safe mode", lambda: asyncio.to_thread(read), KEPT_S)


async def rules(console: Console) -> dict[str, Held]:
    """All rules that the topic holds. Raises BrokerError."""
    topics = console.services.topics
    return await console.snapshots.get(
        "rules", lambda: asyncio.to_thread(control.held_rules, topics), KEPT_S / 2
    )


async def models(console: Console) -> list[ModelVersion]:
    """The artefacts of the registry, the newest first. Raises BrokerError, NotFoundError."""

    def read() -> list[ModelVersion]:
        services = console.services
        current = control.in_force(services.topics, "model")
        try:
            entries = registry.entries(services.settings.registry, services.keyring)
        except RegistryError as error:
            raise NotFoundError("the registry of models cannot be read") from error
        return [
            ModelVersion(
                version=entry.manifest.model_version if entry.manifest else entry.folder.name,
                created_at=str(entry.manifest.created_at) if entry.manifest else "—",
                signed_by=entry.signed_by,
                problem=entry.problem,
                is_promoted=current is not None and current.artefact == str(entry.folder.resolve()),
            )
            for entry in entries
        ]

    return await console.snapshots.get("models", lambda: asyncio.to_thread(read), KEPT_S)
