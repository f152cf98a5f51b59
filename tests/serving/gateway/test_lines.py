from hypothesis import example, given
from hypothesis import strategies as st

from serving.gateway.ingest import MAX_LINE, Lines, Numbered


def read(body: bytes, cuts: list[int]) -> list[Numbered]:
    lines, found, start = Lines(), [], 0
    for cut in [*sorted({min(cut, len(body)) for cut in cuts}), len(body)]:
        found += lines.feed(body[start:cut])
        start = cut
    return found + lines.end()


@given(st.lists(st.sampled_from([b"a", b"{}", b" ", b"\r", b"\n", b"\xff", b"x" * MAX_LINE])), st.data())
@example([b"x" * MAX_LINE, b"x", b"\n", b"a"], None)
@example([b"x" * MAX_LINE, b"\n", b"a\n\nb"], None)
def test_lines_are_the_same_however_a_body_is_cut(parts: list[bytes], data: st.DataObject | None) -> None:
    body = b"".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(body)))) if data else list(range(0, len(body), 999))
    expected = [
        (number, None if len(line) > MAX_LINE else line.strip(b" \t\r"))
        for number, line in enumerate(body.split(b"\n"), 1)
        if line.strip(b" \t\r")
    ]
    assert [entry for entry in read(body, cuts) if entry[1] is not None] == [
        entry for entry in expected if entry[1] is not None
    ]
    assert {number for number, line in read(body, cuts) if line is None} == {
        number for number, line in enumerate(body.split(b"\n"), 1) if len(line) > MAX_LINE
    }


def test_a_line_without_end_is_not_kept() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * MAX_LINE) == []
        assert len(lines._rest) <= MAX_LINE
    assert lines.feed(b"\nb\n") == [(1, None), (2, b"b")]
    assert lines.end() == []
