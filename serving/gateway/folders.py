"""Where the gateway's keys lie."""

from pathlib import Path

KEYS = Path(".run/gateway/keys")
"""The folder where nothing else is said; beside the two below it holds the secrets for personal data."""


def tokens_folder(keys: Path) -> Path:
    """Public keys of tokens, private ones where tokens are issued, and the list of the revoked."""
    return keys / "tokens"


def clients_folder(keys: Path) -> Path:
    """The clients that sign their requests, with their secrets."""
    return keys / "clients"


def users_folder(keys: Path) -> Path:
    """The people who sign in to the console, with hashes of their passwords."""
    return keys / "users"
