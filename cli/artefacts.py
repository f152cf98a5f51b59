"""What the commands show of artefacts: structs for programs, tables for people."""

from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cli.terminal import out, printable
from models.artefact import Manifest
from models.registry import Entry

KEY_METRICS = {"AP": "average_precision", "AUC": "auc_roc"}
"""Shown in the list, as measured on the test block."""


class Shown(msgspec.Struct, frozen=True):
    """An artefact, with all that its manifest says. problem: why it is refused."""

    folder: str
    signed_by: str | None
    problem: str | None
    manifest: Manifest | None


class Listing(msgspec.Struct, frozen=True):
    """The registry. promoted: folder of the artefact in force; unknown: why that cannot be told."""

    registry: str
    promoted: str | None
    unknown: str | None
    artefacts: list[Shown]


class Verification(msgspec.Struct, frozen=True):
    """What came of the checks; version and signer are told of a good artefact only."""

    folder: str
    good: bool
    reason: str | None = None
    model_version: str | None = None
    signed_by: str | None = None


def shown(entry: Entry) -> Shown:
    """The entry, with its folder as jobs know it."""
    return Shown(str(entry.folder.resolve()), entry.signed_by, entry.problem, entry.manifest)


def signature(signed_by: str | None) -> str:
    """Who signed an artefact that is good."""
    return "not signed" if signed_by is None else f"signed by {signed_by}"


def print_listing(listing: Listing) -> None:
    """The registry as a table, and below it what has no room there."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("version", "created", "contract", "trained on", *KEY_METRICS, "signed by", "state"):
        table.add_column(heading, overflow="fold")
    for artefact in listing.artefacts:
        state = _state(artefact, listing.promoted)
        table.add_row(*_about(artefact.folder, artefact.manifest), _safe(artefact.signed_by or ""), state)
    out.print(table)
    for artefact in listing.artefacts:
        if artefact.problem is not None:
            out.print(_safe(f"{artefact.folder}: {artefact.problem}"), soft_wrap=True)
    if listing.unknown is not None:
        out.print(_safe(f"what is promoted cannot be told: {listing.unknown}"), soft_wrap=True)
    else:
        out.print(_safe(f"promoted: {listing.promoted or 'nothing'}"), soft_wrap=True)


def print_manifest(artefact: Shown, manifest: Manifest) -> None:
    """All of a manifest but the knots of its calibrations."""
    facts = Table(box=None, show_header=False)
    for name, value in _facts(artefact, manifest).items():
        facts.add_row(name, _safe(value))
    out.print(facts)

    parts = Table("part", "weight", "calibration", "file", "SHA-256", box=SIMPLE_HEAD)
    for name, part in manifest.parts.items():
        knots = f"{len(part.calibration.x)} knots"
        parts.add_row(name, f"{part.weight:g}", knots, part.file, manifest.files[part.file])
    out.print(parts)

    blocks = manifest.metrics
    names = dict.fromkeys(name for figures in blocks.values() for name in figures)
    table = Table("metric", box=SIMPLE_HEAD)
    for block in blocks:
        table.add_column(_safe(block.replace("_", " ")))
    for name in names:
        table.add_row(_safe(name), *(f"{f[name]:.4f}" if name in f else "" for f in blocks.values()))
    out.print(table)


def _about(folder: str, manifest: Manifest | None) -> list[Text]:
    """Cells from the version to the metrics; without a manifest there is but the folder's name."""
    if manifest is None:
        return [_safe(Path(folder).name), *[Text()] * (3 + len(KEY_METRICS))]
    measured = manifest.metrics.get("test", {})
    cells = (
        manifest.model_version,
        manifest.created_at[:16],
        str(manifest.contract_version),
        " to ".join(time[:10] for time in manifest.training.window),
        *(f"{measured[name]:.3f}" if name in measured else "" for name in KEY_METRICS.values()),
    )
    return list(map(_safe, cells))


def _state(artefact: Shown, promoted: str | None) -> Text:
    states = []
    if artefact.folder == promoted:
        states.append(Text("promoted", "green"))
    if artefact.problem is not None:
        states.append(Text("refused", "red"))
    return Text(", ").join(states)


def _facts(artefact: Shown, manifest: Manifest) -> dict[str, str]:
    training, limits = manifest.training, manifest.thresholds
    return {
        "version": manifest.model_version,
        "folder": artefact.folder,
        "created": manifest.created_at,
        "signature": signature(artefact.signed_by) if artefact.problem is None else "",
        "refused": artefact.problem or "no",
        "contract": str(manifest.contract_version),
        "trained on": f"{training.source}: {training.rows:,} transactions, {training.frauds:,} frauds",
        "from, to": " to ".join(training.window),
        "label delay": f"{training.label_delay_days:g} days",
        "seed": str(training.seed),
        "data SHA-256": training.data_sha256,
        "thresholds": f"review from {limits.review:g}, block from {limits.block:g}",
        "calibration": f"{len(manifest.calibration.x)} knots, of the pooled score",
    }


def _safe(text: str) -> Text:
    return Text(printable(text))
