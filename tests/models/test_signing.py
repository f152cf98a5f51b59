from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from models.signing import (
    KeyFileError,
    Keyring,
    SignatureError,
    generate_keys,
    key_id,
    read_private_key,
    sign,
)
from tests.models.artefacts import trusting

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
KEYRING = trusting(first=KEY, second=OTHER)


@given(st.binary(max_size=2000))
def test_what_was_signed_is_recognised(data: bytes) -> None:
    assert KEYRING.signer(data, sign(data, KEY)) == "first"
    assert KEYRING.signer(data, sign(data, OTHER)) == "second"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_other_data_are_not(data: bytes, other: bytes) -> None:
    if data == other:
        return
    with pytest.raises(SignatureError, match="this is not what first signed"):
        KEYRING.signer(other, sign(data, KEY))


@given(st.data())
def test_no_byte_of_a_signature_can_change(data: st.DataObject) -> None:
    good = sign(b"manifest", KEY)
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[at]))
    with pytest.raises(SignatureError):
        KEYRING.signer(b"manifest", good[:at] + bytes([byte]) + good[at + 1 :])


@given(st.binary(max_size=300))
def test_rubbish_is_no_signature(rubbish: bytes) -> None:
    with pytest.raises(SignatureError, match="malformed"):
        KEYRING.signer(b"manifest", rubbish)


def test_the_key_named_must_be_the_one_that_signed() -> None:
    mine, others = (sign(b"manifest", key).split() for key in (KEY, OTHER))
    with pytest.raises(SignatureError, match="this is not what second signed"):
        KEYRING.signer(b"manifest", b" ".join((mine[0], others[1], mine[2])) + b"\n")


def test_a_signature_in_capitals_is_malformed() -> None:
    with pytest.raises(SignatureError, match="malformed"):
        KEYRING.signer(b"manifest", sign(b"manifest", KEY).upper())


def test_unsigned_only_where_it_is_allowed() -> None:
    with pytest.raises(SignatureError, match="there is no signature"):
        KEYRING.signer(b"manifest", None)
    lenient = Keyring(KEYRING.keys, allow_unsigned=True)
    assert lenient.signer(b"manifest", None) is None
    with pytest.raises(SignatureError, match="this is not what first signed"):
        lenient.signer(b"other", sign(b"manifest", KEY))
    with pytest.raises(SignatureError, match="not among the trusted keys"):
        Keyring({}, allow_unsigned=True).signer(b"manifest", sign(b"manifest", KEY))


def test_keys_are_written_and_read(tmp_path: Path) -> None:
    private, public = generate_keys(tmp_path / "keys")
    assert private.stat().st_mode & 0o777 == 0o600
    key = read_private_key(private)
    assert private.stem == public.stem == key_id(key.public_key())
    assert b"PRIVATE" not in public.read_bytes()

    public.rename(public.with_stem("release"))
    keyring = Keyring.read(tmp_path / "keys")
    assert keyring.signer(b"manifest", sign(b"manifest", key)) == "release"


def test_every_pair_is_another(tmp_path: Path) -> None:
    assert generate_keys(tmp_path) != generate_keys(tmp_path)
    assert len(Keyring.read(tmp_path).keys) == 2


def test_keyring_without_keys(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(KeyFileError, match="there are no trusted keys"):
            Keyring.read(folder)
        assert Keyring.read(folder, allow_unsigned=True) == Keyring({}, allow_unsigned=True)


def curve_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_pem(
    key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no public key"),
        (b"rubbish", "no public key"),
        (private_pem(KEY), "no public key"),
        (public_pem(curve_key()), "no Ed25519 key"),
    ],
    ids=["empty", "text", "private", "curve"],
)
def test_one_bad_file_spoils_the_keyring(tmp_path: Path, content: bytes, reason: str) -> None:
    generate_keys(tmp_path)
    (tmp_path / "bad.pub").write_bytes(content)
    with pytest.raises(KeyFileError, match=rf"bad\.pub is {reason}"):
        Keyring.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no private key"),
        (public_pem(curve_key()), "no private key"),
        (private_pem(KEY, serialization.BestAvailableEncryption(b"secret")), "without a password"),
        (private_pem(curve_key()), "no Ed25519 key"),
    ],
    ids=["empty", "public", "password", "curve"],
)
def test_files_that_are_no_private_key(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.key"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=reason):
        read_private_key(path)


def test_private_key_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_private_key(tmp_path / "none.key")
