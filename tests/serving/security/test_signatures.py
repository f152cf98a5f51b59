"""Signed requests as somebody would alter or repeat them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.security.signatures import (
    SKEW_MS,
    Authorization,
    Request,
    SignatureError,
    parse,
    sign,
    verify,
)

NOW = 1_764_000_000_000
SECRET = b"s" * 32
NONCE = "n" * 22
REQUEST = Request("POST", b"/transactions/ingest?dry=0", b'{"amount": 1}')
HEADER = sign(REQUEST, "shop", SECRET, NOW, NONCE)


def test_what_was_signed_holds() -> None:
    assert parse(HEADER) == Authorization("shop", NOW, NONCE, parse(HEADER).signature)
    verify(REQUEST, parse(HEADER), SECRET, NOW)


def test_the_signature_never_changes_for_the_same_request() -> None:
    """What clients in other languages must reach."""
    assert parse(HEADER).signature == "0c8744aa9c1fac854ab223622ac980b7b499fb11e414ec4e5f44b50e6de20c95"


@pytest.mark.parametrize(
    "altered",
    [
        REQUEST._replace(method="PUT"),
        REQUEST._replace(method="post"),
        REQUEST._replace(target=b"/transactions/ingest"),
        REQUEST._replace(target=b"/transactions/ingest?dry=1"),
        REQUEST._replace(target=b"/transactions/ingest?dry=0&x=1"),
        REQUEST._replace(target=b"/transactions/%69ngest?dry=0"),
        REQUEST._replace(target=b"//transactions/ingest?dry=0"),
        REQUEST._replace(body=b'{"amount": 10}'),
        REQUEST._replace(body=b""),
    ],
)
def test_an_altered_request_is_refused(altered: Request) -> None:
    with pytest.raises(SignatureError, match="wrong"):
        verify(altered, parse(HEADER), SECRET, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"client": "other"},
        {"timestamp": NOW + 1},
        {"nonce": "m" * 22},
        {"signature": "0" * 64},
    ],
)
def test_altered_parameters_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(SignatureError, match="wrong"):
        verify(REQUEST, parse(HEADER)._replace(**change), SECRET, NOW)  # type: ignore[arg-type]


@given(st.integers(-(10**9), 10**9))
def test_the_clock_may_differ_by_two_minutes(skew: int) -> None:
    if abs(skew) <= SKEW_MS:
        verify(REQUEST, parse(HEADER), SECRET, NOW + skew)
        return
    with pytest.raises(SignatureError, match="timestamp"):
        verify(REQUEST, parse(HEADER), SECRET, NOW + skew)


@pytest.mark.parametrize(
    "header",
    [
        "",
        HEADER + "\n",
        HEADER + " ",
        HEADER.replace(", ", ","),
        HEADER.replace("V2", "V1"),
        HEADER.replace("client=shop", "client=shop, client=other"),
        HEADER.replace("client=shop", "client=sh\r\nop"),
        HEADER.replace("client=shop", "client="),
        HEADER.replace(f"timestamp={NOW}", "timestamp=-1764000000000"),
        HEADER.replace(f"timestamp={NOW}", f"timestamp={NOW}0"),
        HEADER.replace(f"timestamp={NOW}", "timestamp=١٧٦٤٠٠٠٠٠٠٠٠٠"),
        HEADER.replace(NONCE, "short"),
        HEADER.replace(NONCE, "n" * 65),
        HEADER.replace(NONCE, "n" * 21 + ":"),
        HEADER.upper(),
    ],
)
def test_a_header_has_one_spelling(header: str) -> None:
    with pytest.raises(SignatureError, match="malformed"):
        parse(header)


@given(st.text())
def test_any_other_text_is_no_header(text: str) -> None:
    with pytest.raises(SignatureError):
        parse(text)


@given(st.binary(), st.binary())
def test_two_bodies_share_no_signature(one: bytes, other: bytes) -> None:
    signed = parse(sign(REQUEST._replace(body=one), "shop", SECRET, NOW, NONCE))
    if one == other:
        verify(REQUEST._replace(body=other), signed, SECRET, NOW)
        return
    with pytest.raises(SignatureError):
        verify(REQUEST._replace(body=other), signed, SECRET, NOW)
