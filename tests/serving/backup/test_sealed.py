"""The sealed stream: what was written comes back, and nothing else does."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backup.errors import BackupError
from serving.backup.sealed import CHUNK, MAGIC, OpeningReader, SealingWriter

KEY = bytes(range(32))
LENGTHS = st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])


def seal(data: bytes, pieces: int = 1, name: str = "a") -> bytes:
    file = io.BytesIO()
    writer = SealingWriter(file, KEY, name)
    step = max(1, len(data) // pieces)
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
    writer.close()
    return file.getvalue()


def opened(content: bytes, key: bytes = KEY, name: str = "a") -> bytes:
    return io.BufferedReader(OpeningReader(io.BytesIO(content), key, name)).read()


@given(LENGTHS, st.integers(1, 7))
def test_what_was_sealed_is_opened(length: int, pieces: int) -> None:
    data = bytes(n % 251 for n in range(length))
    content = seal(data, pieces)

    assert opened(content) == data
    assert seal(data) != content, "sealed anew each time"


@given(LENGTHS, st.data())
def test_a_changed_byte_is_noticed(length: int, data: st.DataObject) -> None:
    content = bytearray(seal(bytes(length)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BackupError):
        opened(bytes(content))


@given(LENGTHS, st.data())
def test_a_cut_is_noticed_wherever_it_is(length: int, data: st.DataObject) -> None:
    content = seal(bytes(length))
    chunk = CHUNK + 16
    at_chunks = [len(MAGIC) + 32 + n * chunk for n in range(len(content) // chunk + 1)]
    at = data.draw(
        st.sampled_from([n for n in at_chunks if n < len(content)]) | st.integers(0, len(content) - 1)
    )
    with pytest.raises(BackupError):
        opened(content[:at])


def test_chunks_that_change_places_or_come_from_another_file_are_noticed() -> None:
    head, chunk = len(MAGIC) + 32, CHUNK + 16
    content, other = seal(bytes(3 * CHUNK)), seal(bytes(3 * CHUNK))
    first, second = content[head : head + chunk], content[head + chunk : head + 2 * chunk]
    with pytest.raises(BackupError):
        opened(content[:head] + second + first + content[head + 2 * chunk :])
    with pytest.raises(BackupError):
        opened(content[:head] + other[head:])


@pytest.mark.parametrize(("key", "name"), [(bytes(32), "a"), (KEY, "b")])
def test_another_key_or_name_opens_nothing(key: bytes, name: str) -> None:
    with pytest.raises(BackupError, match="another key, changed or cut"):
        opened(seal(b"data"), key, name)
