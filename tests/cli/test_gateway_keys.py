"""`fraudstream keys`, `tokens` and the start of `gateway`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from serving.gateway.folders import clients_folder, tokens_folder
from serving.security.clients import Limit, read_clients
from serving.security.personal import read_secrets
from serving.security.tokens import TokenVerifier
from tests.cli.commands import fraudstream


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    assert fraudstream("keys", "init", "--keys", folder).status == 0
    return folder


def token(keys: Path, *options: str | Path) -> str:
    """What a script would take: standard output alone."""
    arguments = ["tokens", "issue", "alice", "--role", "analyst", "--keys", str(keys), *map(str, options)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_init_makes_what_is_missing_and_nothing_else(keys: Path) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    assert len(before) == 5
    assert fraudstream("keys", "init", "--keys", keys) == (0, "")
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before
    assert all(path.stat().st_mode & 0o077 == 0 for path in before if path.suffix != ".pub")
    read_secrets(keys)


def test_the_life_of_a_token(keys: Path) -> None:
    given = token(keys, "--minutes", "5")
    said = fraudstream("tokens", "verify", "--keys", keys, stdin=given.encode())
    assert said.text.startswith("alice, analyst, id ")
    revoked = fraudstream("tokens", "revoke", said.text.rpartition(" ")[2], "--keys", keys)
    assert revoked.status == 0
    said = fraudstream("tokens", "verify", "--keys", keys, stdin=given.encode())
    assert said.status == 1
    assert "revoked" in said.text


def test_after_a_rotation_both_keys_count_until_one_is_deleted(keys: Path) -> None:
    old = token(keys)
    (first,) = tokens_folder(keys).glob("*.pub")
    assert fraudstream("keys", "rotate", "--keys", keys).status == 0
    new = token(keys)
    verifier = TokenVerifier(tokens_folder(keys))
    assert verifier.verify(old).subject == verifier.verify(new).subject == "alice"
    first.unlink()
    assert TokenVerifier(tokens_folder(keys)).verify(new)
    assert fraudstream("tokens", "verify", "--keys", keys, stdin=old.encode()).status == 1
    assert token(keys, "--key", first.with_suffix(".key")), "the private key alone proves nothing"


def test_a_client_has_a_secret_that_is_shown_nowhere(keys: Path) -> None:
    made = fraudstream("keys", "client", "shop", "--burst", "7", "--per-minute", "9", "--keys", keys)
    assert made.status == 0
    client = read_clients(clients_folder(keys))["shop"]
    assert (client.role, client.limit) == ("producer", Limit(7, 9.0))
    listed = fraudstream("keys", "list", "--keys", keys)
    assert "shop producer 7 9" in listed.text
    (path,) = clients_folder(keys).iterdir()
    secret = path.read_text().split('"secret": "')[1].split('"')[0]
    assert secret not in made.text + listed.text
    again = fraudstream("keys", "client", "shop", "--keys", keys)
    assert again.status == 1
    assert "already" in again.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keys", "rotate"), "there are no keys yet"),
        (("keys", "list"), "there are no trusted keys"),
        (("tokens", "issue", "alice", "--role", "admin"), "there is no private key"),
        (("tokens", "verify"), "there are no trusted keys"),
        (("tokens", "revoke", "x y"), "no id of a token"),
        (("keys", "client", "a b"), "client_id"),
    ],
)
def test_what_is_missing_or_wrong_is_named(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    answer = fraudstream(*arguments, "--keys", tmp_path / "none")
    assert answer.status == 1
    assert said in answer.text


@pytest.mark.parametrize("arguments", [("--role", "root"), ("--role", "admin", "--minutes", "99999")])
def test_no_token_beyond_what_may_be(keys: Path, arguments: tuple[str, ...]) -> None:
    assert fraudstream("tokens", "issue", "alice", *arguments, "--keys", keys).status == 2


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ((), {}, "keys init"),
        ((), {"FRAUDSTREAM_GATEWAY_SCORE_MS": "0"}, "gateway_score_ms"),
        (("--tls-cert", "a.pem"), {}, "come together"),
        (("--client-ca", "ca.pem"), {}, "needs them"),
    ],
)
def test_a_gateway_that_cannot_start_says_why(
    options: tuple[str, ...], environment: dict[str, str], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answer = fraudstream("gateway", *options)
    assert answer.status == 1
    assert said in answer.text
