"""What the terminal shows: consoles, errors meant for the reader, and text from outside made safe."""

import sys

from rich.console import Console

# Into a pipe or a file rows shall stay rows; rich would take 80 columns for anything but a terminal.
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)


class UserError(Exception):
    """Something the reader can put right; the message says what, and the program ends with status 1."""


def printable(text: str) -> str:
    """`text` with every character escaped that could steer a terminal or reorder what stands around it.

    Control characters, line breaks, bidirectional marks and lone surrogates become backslash escapes, and
    a backslash is doubled, so that what is shown stands for one text alone.
    """
    return "".join(
        "\\\\" if c == "\\" else c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def printable_bytes(data: bytes, limit: int) -> str:
    """The first `limit` bytes as by `printable`; bytes that are not UTF-8 become `\\xNN`."""
    # surrogateescape keeps wrong bytes apart from backslashes that were there before.
    shown = "".join(
        f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else printable(c)
        for c in data[:limit].decode(errors="surrogateescape")
    )
    return shown if len(data) <= limit else f"{shown}… ({len(data):,} bytes)"
