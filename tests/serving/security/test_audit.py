"""The audit trail as somebody would tamper with it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.security.audit import GENESIS, Act, AuditError, AuditTrail, Entry, Head, verify

ACT = Act("alice", "admin", "rules.put", "r1", "c1")


def trail_of(path: Path, count: int) -> Head:
    trail = AuditTrail(path)
    for number in range(count):
        trail.append(ACT._replace(target=f"r{number}"), "done")
    trail.close()
    return verify(path)


def test_a_trail_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.jsonl"
    assert trail_of(path, 0) == Head(0, GENESIS)
    noted = trail_of(path, 3)
    assert noted.number == 3
    assert trail_of(path, 2).number == 5
    assert verify(path, noted).number == 5
    assert path.stat().st_mode & 0o077 == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_byte_changes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "audit.jsonl"
    path.unlink(missing_ok=True)
    trail_of(path, 3)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(AuditError):
        verify(path)
    if at == len(content) - 1:  # an entry without its end is taken for what a crash left, and that is told
        assert trail_of(path, 0).number == 3
        assert b"audit.torn" in path.read_bytes()
        return
    with pytest.raises(AuditError):
        AuditTrail(path)


@pytest.mark.parametrize("order", [[0, 2], [1, 2], [1, 0, 2], [0, 0, 1, 2], [2, 1, 0]])
def test_no_entry_goes_or_moves_unnoticed(tmp_path: Path, order: list[int]) -> None:
    path = tmp_path / "audit.jsonl"
    trail_of(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(AuditError, match="follow"):
        verify(path)


def test_a_cut_end_shows_against_a_head_noted_before(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    noted = trail_of(path, 3)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert verify(path).number == 2
    with pytest.raises(AuditError, match="gone"):
        verify(path, noted)


def test_a_trail_written_anew_shows_against_a_head_noted_before(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    noted = trail_of(path, 3)
    path.unlink()
    trail_of(path, 5)
    with pytest.raises(AuditError, match="gone"):
        verify(path, noted)


def test_a_trail_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first = AuditTrail(path)
    with pytest.raises(AuditError, match="another"):
        AuditTrail(path)
    first.append(ACT, "done")
    first.close()
    assert trail_of(path, 1).number == 2


@given(st.integers(1, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_half_an_entry_is_taken_away(tmp_path: Path, left: int) -> None:
    path = tmp_path / "audit.jsonl"
    path.unlink(missing_ok=True)
    noted = trail_of(path, 2)
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[-1][:left])
    assert trail_of(path, 1).number == 4
    assert verify(path, noted).number == 4
    assert b"audit.torn" in path.read_bytes()


def test_texts_cannot_make_entries(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    trail = AuditTrail(path)
    trail.append(ACT._replace(actor="a\r\nb"), "done", '"}\n{"number": 2}')
    trail.close()
    (line,) = path.read_bytes().splitlines()
    assert msgspec.json.decode(line, type=Entry).actor == "a\r\nb"


def test_a_full_disk_is_told_and_leaves_the_trail_whole(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "audit.jsonl"
    trail = AuditTrail(path)
    trail.append(ACT, "done")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(AuditError, match="No space left"):
            trail.append(ACT, "done")
    trail.append(ACT, "done")
    trail.close()
    assert verify(path).number == 2
