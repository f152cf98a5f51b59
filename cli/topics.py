"""`fraudstream topics`."""

from typing import Annotated

import typer

from cli import kafka
from cli.terminal import UserError, out
from stack.errors import StackError
from stack.topics import ensure_topics

app = typer.Typer(add_completion=False)


@app.command()
def topics(
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    partitions: Annotated[int, typer.Option(min=1, help="Of the topics that are not compacted.")] = 4,
    replication_factor: Annotated[int, typer.Option(min=1, help="Copies of every partition.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the broker.")] = 15.0,
) -> None:
    """Create the Kafka topics that do not exist yet; those that do are left as they are."""
    try:
        created = ensure_topics(
            bootstrap,
            partitions=partitions,
            replication_factor=replication_factor,
            prefix=topic_prefix,
            timeout=timeout,
        )
    except StackError as error:
        raise UserError(str(error)) from error
    out.print(f"created {', '.join(created)}" if created else "all topics exist", highlight=False)
