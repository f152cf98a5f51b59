"""The list of commands, and how an error is told."""

from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from cli.lazy import LazyCommand
from cli.terminal import UserError, err, out, printable
from serving.errors import BrokerError, ControlError

COMMANDS = {
    "On this machine": {
        "demo": ("cli.demo.command", "Score simulated traffic with the real job and show how it went."),
        "stack": ("stack.app", "Kafka, Flink, Redis and a MongoDB-protocol server, without Docker."),
    },
    "Traffic and models": {
        "simulate": ("simulator.app:simulate", "Simulate traffic with known fraud, to files or Kafka."),
        "replay": ("simulator.app:replay", "Send the transactions of a CSV or parquet file to Kafka."),
        "train": ("models.app:train", "Train a model and write it as an artefact."),
        "evaluate": ("models.evaluation_app", "Measure an ensemble on recorded transactions."),
        "models": ("cli.models", "The registry of models: look, verify, sign, promote, roll back."),
    },
    "A running system": {
        "topics": ("cli.topics", "Create the Kafka topics that do not exist yet."),
        "decisions": ("cli.decisions", "Show decisions, of a file or of the topic."),
        "explain": ("cli.explain", "Say why transactions were decided as they were."),
        "dead-letters": ("cli.dead_letters", "Show what could not be processed, and why."),
        "feedback": ("cli.feedback", "Send what is known of decisions: verdicts, chargebacks."),
        "online": ("cli.online", "The online learner: look, promote, roll back, freeze."),
        "backup": ("cli.backup", "The database on files and back: run, verify, restore, list."),
        "rules": ("cli.rules", "Analysts' rules: put, look, switch, delete, test on recorded transactions."),
    },
    "For people and payment systems": {
        "gateway": ("cli.gateway", "Serve the HTTP interface."),
        "keys": ("cli.keys", "Keys of the gateway: for tokens, clients that sign, personal data."),
        "notify": ("cli.notify", "Send alerts to chat, mail and webhooks."),
        "tokens": ("cli.tokens", "Access tokens of the gateway: issue, verify, revoke."),
        "users": ("cli.users", "People who sign in to the analyst console: add, list, remove."),
    },
    "Contracts": {
        "contract": ("cli.contract", "Show the feature contract and the reason codes."),
        "events": ("cli.contract_files", "The generated files of the wire contract."),
    },
}
"""Panels of the help page: their commands, with target (see `LazyCommand`) and summary."""


class Commands(TyperGroup):
    """All commands; what the reader can put right ends any of them with a message and status 1."""

    def __init__(self, **attributes: Any) -> None:
        """`attributes` are typer's own."""
        stand_ins = {
            name: LazyCommand(name, target, summary, panel)
            for panel, commands in COMMANDS.items()
            for name, (target, summary) in commands.items()
        }
        super().__init__(**attributes | {"commands": stand_ins})

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error
        except (BrokerError, ControlError) as error:
            err.print(f"[bold red]error:[/] {escape(printable(str(error)))}", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"fraudstream {version('fraudstream')}", highlight=False)
        raise typer.Exit


@app.callback()
def fraudstream(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Real-time card-fraud detection on Apache Flink."""


if __name__ == "__main__":
    app(prog_name="fraudstream")
