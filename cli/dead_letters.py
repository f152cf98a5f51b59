"""`fraudstream dead-letters`."""

from collections import Counter
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cli import kafka
from cli.records import FileOrTopic, Limit, newest_in_file, newest_in_topic
from cli.terminal import out, printable, printable_bytes
from events.decision import DeadLetter

app = typer.Typer(no_args_is_help=True)


@app.callback()
def dead_letters() -> None:
    """Records that could not be processed."""


@app.command()
def show(  # noqa: PLR0913, PLR0917 - each is an option of the command
    file: FileOrTopic = None,
    limit: Limit = 20,
    reason: Annotated[str | None, typer.Option(help="Only with this reason.", show_default=False)] = None,
    width: Annotated[int, typer.Option(min=1, help="Show so many bytes of each original.")] = 120,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Show the newest dead letters of a file or of the topic, with the original bytes escaped."""

    def wanted(letter: DeadLetter) -> bool:
        return reason in (None, letter.reason)

    if file is not None:
        letters, _ = newest_in_file(file, DeadLetter, limit, wanted)
    else:
        config = kafka.client_config(bootstrap, kafka_set)
        filtered = wanted if reason else None
        letters = newest_in_topic(config, f"{topic_prefix}dead-letter", DeadLetter, limit, filtered)
    if not letters:
        out.print("there are no dead letters" if reason is None else "there are no such dead letters")
        return
    table = Table(box=SIMPLE_HEAD)
    for heading in ("from", "reason", "field", "detail", "key", "original"):
        table.add_column(heading, overflow="fold")
    for letter in letters:
        table.add_row(
            Text(f"{printable(letter.topic)}[{letter.partition}]@{letter.offset}"),
            Text(printable(letter.reason), "bold"),
            Text(printable(letter.field or "")),
            Text(printable(letter.detail)),
            Text(printable_bytes(letter.key or b"", 40)),
            Text(printable_bytes(letter.payload, width)),
        )
    out.print(table)
    counts = Counter(letter.reason for letter in letters)
    out.print(Text(", ".join(f"{printable(name)} {count}" for name, count in counts.most_common())))
