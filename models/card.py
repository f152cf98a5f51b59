"""The model card of an artefact: what it is for, what it was made from, what it is worth, where it fails.

After Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from models.artefact import Manifest

PARTS: Final = {
    "gbt": "gradient-boosted trees over all features",
    "forest": "isolation forest over the high side of what is unusual, fitted without labels",
    "autoencoder": "auto-encoder of legitimate transactions",
    "sequence": "gated recurrent network over the user's last transactions, joined by all features",
    "graph": "network over what is known of users, terminals and devices that meet in the transaction",
}
BLOCKS: Final = {
    "test": "the model",
    "test_without_optional_fields": "the model, users without optional fields",
    "test_heuristic": "the score card that decides where no model does",
}
FIGURES: Final = {
    "auc_roc": "AUC",
    "average_precision": "average precision",
    "recall_at_fpr_0.1%": "recall at 0.1 % false alarms",
    "recall_at_fpr_1%": "recall at 1 %",
    "brier": "Brier score",
}
AT_THRESHOLDS: Final = "test_at_thresholds"


def card(manifest: Manifest) -> str:
    """The card, in Markdown, from the manifest alone."""
    sections = (_use(manifest), _origin(manifest), _worth(manifest), _limits(manifest))
    return "\n".join(line for section in sections for line in section)


def _use(manifest: Manifest) -> Iterator[str]:
    limits = manifest.thresholds
    yield from (f"# Model card: {manifest.model_version}", "")
    yield (
        "Gives the probability that a card or account transaction is fraudulent, from the features of "
        f"contract {manifest.contract_version}, while the payment waits. From {limits.review:g} on a "
        f"transaction is reviewed by a person, from {limits.block:g} on blocked. It is made to rank and stop "
        "single transactions. It is not made to judge a person, to grant credit, or to decide alone that an "
        "account is closed."
    )
    yield from ("", "## Parts", "")
    yield from _table(
        ("part", "what it is", "weight"),
        [(name, PARTS.get(name, ""), f"{part.weight:g}") for name, part in manifest.parts.items()],
    )
    yield "Parts are calibrated, pooled by the weighted mean of their log-odds, and calibrated again."
    yield ""


def _origin(manifest: Manifest) -> Iterator[str]:
    training = manifest.training
    yield from ("## Trained on", "")
    yield from _table(
        ("", ""),
        [
            ("source", training.source),
            ("transactions", f"{training.rows:,}, of which {training.frauds:,} are frauds"),
            ("from, to", ", ".join(training.window)),
            ("labels known after", f"{training.label_delay_days:g} days"),
            ("seed", str(training.seed)),
            ("data", f"SHA-256 `{training.data_sha256}`"),
            ("made", manifest.created_at),
        ],
    )


def _worth(manifest: Manifest) -> Iterator[str]:
    yield from ("## Measured on later days that no part of it has seen", "")
    measured = manifest.metrics
    alone = {f"test_{name}": f"{name} alone" for name in manifest.parts}
    named = {k: v for k, v in (BLOCKS | alone).items() if k in measured}
    figures = {k: v for k, v in FIGURES.items() if any(k in measured[block] for block in named)}
    yield from _table(
        ("", *figures.values()),
        [(name, *_cells(measured[block], list(figures))) for block, name in named.items()],
    )
    reached = measured.get(AT_THRESHOLDS, {})
    if reached:
        yield from ("At its thresholds:", "")
        yield from _table(
            ("", ""), [(name.replace("_", " "), f"{value:.4g}") for name, value in reached.items()]
        )


def _limits(manifest: Manifest) -> Iterator[str]:
    yield from (
        "## Where it fails",
        "",
        "- It knows the frauds of its training data. A new pattern is found only as far as it looks unusual;",
        f"  the recall by pattern above tells how unequal that is. Labels come {_delay(manifest)} late.",
        "- Frauds at a terminal of which none is known yet look like any other transaction.",
        "- Scores are probabilities where the share of frauds is that of the training data. The running job",
        "  measures how far its traffic is from the baseline in the manifest.",
        "- Names, addresses, age, sex and nationality are no features. Countries, places and times of day",
        "  are, and may stand for them: compare false alarms between groups of your own customers.",
        "",
    )


def _delay(manifest: Manifest) -> str:
    days = manifest.training.label_delay_days
    return "1 day" if days == 1 else f"{days:g} days"


def _cells(figures: Mapping[str, float], names: Sequence[str]) -> Iterator[str]:
    return (f"{figures[name]:.4f}" if name in figures else "" for name in names)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""
