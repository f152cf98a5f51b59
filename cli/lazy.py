"""Commands that are imported only when they are called, so that `--help` answers at once."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class LazyCommand(TyperCommand):
    """Stands in the list of commands for one that lives in another module.

    `target` is MODULE:NAME; with a name the command of that name in the module's `app`, else the whole
    `app`.
    """

    def __init__(self, name: str, target: str, summary: str, panel: str) -> None:
        """Nothing is imported yet; `summary` is what the list of commands says."""
        super().__init__(name, help=summary, rich_help_panel=panel)
        self._target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself: from here on it has taken this one's place."""
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> Any:
        module, _, name = self._target.partition(":")
        loaded = typer.main.get_command(import_module(module).app)
        # typer makes no group of an app with a single command.
        return loaded.commands[name] if name and isinstance(loaded, TyperGroup) else loaded
