from pathlib import Path

import pytest

from models.signing import KeyFileError
from serving.security.clients import Limit, new_client, read_clients


def test_clients_are_read_as_they_were_written(tmp_path: Path) -> None:
    limited = new_client(tmp_path, "b", "analyst", Limit(7, 9.0))
    written = [client for _, client in (new_client(tmp_path, "shop/1", "producer"), limited)]
    assert read_clients(tmp_path) == {client.client_id: client for client in written}
    assert read_clients(tmp_path / "nowhere") == {}
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_who_has_no_limit_of_his_own_has_the_usual_one() -> None:
    assert Limit() == Limit(burst=100, per_minute=50.0)


def test_no_client_takes_the_place_of_another(tmp_path: Path) -> None:
    new_client(tmp_path, "shop/../x", "producer")
    with pytest.raises(FileExistsError):
        new_client(tmp_path, "shop/../x", "admin")
    assert len(list(tmp_path.iterdir())) == 1


def test_the_secret_stands_in_no_text(tmp_path: Path) -> None:
    _, client = new_client(tmp_path, "shop", "producer")
    assert str(client.secret) not in f"{client} {client!r}"


@pytest.mark.parametrize("client_id", ["", "a b", "a\nb", "a" * 129])
def test_a_client_is_named_by_an_identifier(tmp_path: Path, client_id: str) -> None:
    with pytest.raises(ValueError, match="client_id"):
        new_client(tmp_path, client_id, "producer")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"client_id": "b", "role": "producer"}',
        '{"client_id": "a", "role": "root"}',
        '{"client_id": "a", "role": "producer", "secret": "c2hvcnQ="}',
        '{"client_id": "a", "role": "producer", "admin": true}',
        '{"client_id": "a", "role": "producer", "limit": {"burst": 0}}',
    ],
)
def test_a_file_that_is_no_client_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "YQ.json").write_text(content)
    with pytest.raises(KeyFileError, match=r"YQ\.json"):
        read_clients(tmp_path)
