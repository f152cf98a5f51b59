"""`fraudstream users`."""

from pathlib import Path

from serving.gateway.folders import users_folder
from serving.security.accounts import Accounts
from tests.cli.commands import fraudstream

PASSWORD = b"correct horse battery\n"


def account(keys: Path, name: str = "ana-7"):  # type: ignore[no-untyped-def]
    return Accounts(users_folder(keys)).get(name)


def test_the_life_of_a_user(tmp_path: Path) -> None:
    said = fraudstream("users", "add", "ana-7", "--role", "analyst", "--keys", tmp_path, stdin=PASSWORD)
    assert said == (0, "user ana-7, analyst")
    assert account(tmp_path).proved_by("correct horse battery")
    assert not account(tmp_path).proved_by("correct horse batterz")
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*") if path.is_file())
    assert not any(b"horse" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    listed = fraudstream("users", "list", "--keys", tmp_path).text
    assert "ana-7 analyst" in listed
    said = fraudstream("users", "passwd", "ana-7", "--generate", "--keys", tmp_path)
    assert account(tmp_path).proved_by(said.text.split()[-1])
    assert not account(tmp_path).proved_by("correct horse battery")
    assert fraudstream("users", "remove", "ana-7", "--keys", tmp_path).status == 0
    assert "nobody yet" in fraudstream("users", "list", "--keys", tmp_path).text


def test_what_is_refused(tmp_path: Path) -> None:
    add = ("users", "add", "ana-7", "--role", "analyst", "--keys", tmp_path)
    said = fraudstream(*add, stdin=b"too short\n")
    assert said.status == 1
    assert "12 characters" in said.text
    assert account(tmp_path) is None
    assert fraudstream(*add, stdin=PASSWORD).status == 0
    assert "already" in fraudstream(*add, stdin=PASSWORD).text
    assert account(tmp_path).proved_by("correct horse battery")
    assert fraudstream("users", "add", "m", "--role", "producer", "--keys", tmp_path).status == 2
    said = fraudstream("users", "add", "a b", "--role", "admin", "--keys", tmp_path, stdin=PASSWORD)
    assert said.status == 1
    assert "subject" in said.text
    for command in ("remove", "passwd"):
        said = fraudstream("users", command, "no-one", "--keys", tmp_path, stdin=PASSWORD)
        assert said.status == 1
        assert "no user no-one" in said.text
