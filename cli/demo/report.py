"""The outcome of a run in the terminal."""

from collections import Counter

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.demo.outcome import Caught, Outcome
from cli.terminal import printable, printable_bytes
from models.rules import VERDICTS

SHOWN_BYTES = 48


def show(outcome: Outcome, console: Console) -> None:
    """Print the summary."""
    console.print(_speed(outcome))
    console.print(Columns([_verdicts(outcome), _caught(outcome)], padding=(0, 4)))
    console.print(Columns([_patterns(outcome), _letters(outcome)], padding=(0, 4)))
    console.print(_reconciliation(outcome))


def _speed(outcome: Outcome) -> RenderableType:
    speed = outcome.speed
    typical, worst = speed.batch_ms
    return Text.assemble(
        (f"\n{speed.rate:,.0f} transactions/s", "bold cyan"),
        f" through the job: {speed.decisions:,} in {speed.scoring_s:.1f} s, after {speed.start_s:.1f} s ",
        f"in which Flink and Python started;\n{speed.total_s:.1f} s from start to end of the process. ",
        f"Micro-batches of {speed.batch_size:,.0f} decisions (median) came {typical:.0f} ms after one ",
        f"another (p99 {worst:.0f} ms).\nA file is read as fast as it can be: this is throughput, not the ",
        "latency of a live stream.",
    )


def _verdicts(outcome: Outcome) -> RenderableType:
    table = _table("Decisions", "", "number", "share")
    total = sum(outcome.verdicts.values())
    for verdict in VERDICTS:
        number = outcome.verdicts.get(verdict, 0)
        table.add_row(verdict, f"{number:,}", f"{number / max(total, 1):.2%}")
    table.add_row("degraded", f"{outcome.degraded:,}", f"{outcome.degraded / max(total, 1):.2%}", style="dim")
    return Group(table, Text(f"  model {printable(outcome.model_version)}", "dim"))


def _caught(outcome: Outcome) -> RenderableType:
    measured_days = max(outcome.days - outcome.warm_up, 1)
    table = _table("Fraud caught", "alerts", "a day", "precision", "recall", "of the money")

    def row(name: str, caught: Caught) -> None:
        table.add_row(
            name,
            f"{caught.alerts / measured_days:,.0f}",
            f"{caught.precision:.1%}",
            f"{caught.recall:.1%}",
            f"{caught.value_recall:.1%}",
        )

    row("blocked", outcome.blocked)
    row("blocked or reviewed", outcome.alerted)
    row(f"{outcome.alerts_per_day} highest scores a day", outcome.budget)
    note = f"  {outcome.frauds:,} frauds from day {outcome.warm_up + 1} on; before, users have little history"
    return Group(table, Text(note, "dim"))


def _patterns(outcome: Outcome) -> RenderableType:
    table = _table("Recall by fraud pattern", "", "frauds", "blocked", "reviewed", "caught")
    for pattern in outcome.patterns:
        table.add_row(
            pattern.name.replace("_", " "),
            f"{pattern.frauds:,}",
            f"{pattern.blocked:,}",
            f"{pattern.reviewed:,}",
            f"{(pattern.blocked + pattern.reviewed) / pattern.frauds:.0%}",
        )
    note = "  a file brings no labels: the risk of terminals and earlier frauds stay unknown"
    return Group(table, Text(note, "dim"))


def _letters(outcome: Outcome) -> RenderableType:
    table = _table("Dead letters", "reason", "number", "for instance")
    table.columns[2].justify = "left"
    samples = {letter.reason: letter for letter in outcome.letters}
    for reason, number in Counter(letter.reason for letter in outcome.letters).most_common():
        letter = samples[reason]
        instance = f"{printable(letter.field)}: " if letter.field else ""
        table.add_row(reason, f"{number}", f"{instance}{printable_bytes(letter.payload, SHOWN_BYTES)}")
    return table


def _reconciliation(outcome: Outcome) -> RenderableType:
    r = outcome.reconciliation
    if r.holds:
        return Text.assemble(
            ("✓ ", "bold green"),
            f"{r.lines:,} lines in = {r.decisions:,} decisions + {r.dead_letters:,} dead letters + "
            f"{r.repeats:,} repeats; every transaction has one decision, every spoilt line is kept whole.",
        )
    return Text.assemble(("✗ the counts do not agree: ", "bold red"), "; ".join(r.problems))


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    return table
