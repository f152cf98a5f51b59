"""`python -m events generate` writes the AsyncAPI document and the Avro schemas, `check` names stale ones."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from events.asyncapi import document
from events.avro import schema_files

FOLDER = Path(__file__).parent


def generated() -> Iterator[tuple[str, str]]:
    """Path below `events/` and text of every generated file."""
    yield "asyncapi.yaml", document()
    for name, text in schema_files():
        yield f"schemas/{name}", text


def stale(folder: Path) -> list[str]:
    """The generated files that are missing from `folder` or no longer what the structs say."""
    return [name for name, text in generated() if not _holds(folder / name, text)]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Exit status: 0, or 1 if `check` found stale files."""
    parser = argparse.ArgumentParser(prog="python -m events", description=__doc__)
    parser.add_argument("command", choices=("generate", "check"))
    if parser.parse_args(arguments).command == "generate":
        (folder / "schemas").mkdir(exist_ok=True)
        for name, text in generated():
            (folder / name).write_text(text, encoding="utf-8")
        return 0
    names = stale(folder)
    for name in names:
        print(f"stale: events/{name}; run `python -m events generate`", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
