"""Tokens as an attacker would make them."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.signing import KeyFileError, generate_keys, key_id, read_private_key
from serving.security.permissions import ROLES, Principal
from serving.security.tokens import (
    AUDIENCE,
    ISSUER,
    MAX_LIFETIME_S,
    TYPE,
    TokenError,
    TokenVerifier,
    encode,
    issue,
    revoke,
)


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    private, _ = generate_keys(tmp_path)
    return read_private_key(private)


@pytest.fixture
def verifier(key: Ed25519PrivateKey, tmp_path: Path) -> TokenVerifier:  # noqa: ARG001 - the folder holds it
    return TokenVerifier(tmp_path)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "role": "analyst", "jti": "t1",
        "iat": now, "nbf": now, "exp": now + 600,
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not None}


def segment(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize("role", ROLES)
def test_a_token_proves_who_holds_it(verifier: TokenVerifier, key: Ed25519PrivateKey, role: Any) -> None:
    token, said = issue(key, "alice", role)
    assert verifier.verify(token) == Principal("alice", role, said.jti)


@pytest.mark.parametrize("subject", ["", "a b", "a\nb", "é", "a" * 129])
def test_a_subject_is_an_identifier(key: Ed25519PrivateKey, subject: str) -> None:
    with pytest.raises(ValueError, match="sub"):
        issue(key, subject, "admin")


@pytest.mark.parametrize("lifetime", [0, -1, MAX_LIFETIME_S + 1])
def test_no_token_lives_longer_than_any_may(key: Ed25519PrivateKey, lifetime: int) -> None:
    with pytest.raises(ValueError, match="lives"):
        issue(key, "alice", "admin", lifetime)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 60},
        {"nbf": int(time.time()) + 3600, "exp": int(time.time()) + 7200},
        {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 7200},
        {"exp": int(time.time()) + MAX_LIFETIME_S + 3600},
        {"aud": "another"},
        {"aud": [AUDIENCE, "another"]},
        {"iss": "another"},
        {"role": "root"},
        {"role": ["admin"]},
        {"sub": "a" * 129},
        {"sub": 7},
        {"sub": ""},
        {"sub": "alice\nbob"},
        {"jti": "a b"},
        {"exp": "never"},
        {"exp": 1e400},
        *({name: None} for name in ("iss", "aud", "sub", "role", "jti", "iat", "nbf", "exp")),
    ],
)
def test_claims_that_are_no_good(
    verifier: TokenVerifier, key: Ed25519PrivateKey, changes: dict[str, Any]
) -> None:
    with pytest.raises(TokenError):
        verifier.verify(encode(key, claims(**changes)))


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "", None])
def test_an_unsigned_token_proves_nothing(
    verifier: TokenVerifier, key: Ed25519PrivateKey, algorithm: str | None
) -> None:
    header = {"typ": TYPE, "alg": algorithm, "kid": key_id(key.public_key())}
    for signature in ("", segment(b"\0" * 64)):
        with pytest.raises(TokenError):
            verifier.verify(f"{segment(header)}.{segment(claims(role='admin'))}.{signature}")


@pytest.mark.parametrize("form", ["pem", "raw"])
def test_the_public_key_is_no_hmac_secret(verifier: TokenVerifier, key: Ed25519PrivateKey, form: str) -> None:
    public = key.public_key()
    secret = (
        public.public_bytes_raw()
        if form == "raw"
        else public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for algorithm in ("HS256", "EdDSA"):
        header = {"typ": TYPE, "alg": algorithm, "kid": key_id(public)}
        signed = f"{segment(header)}.{segment(claims(role='admin'))}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(TokenError):
            verifier.verify(f"{signed}.{segment(mac)}")


def test_keys_that_a_token_brings_along_count_nothing(verifier: TokenVerifier) -> None:
    own = Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": segment(own.public_key().public_bytes_raw())}
    for extra in (
        {"jwk": jwk},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example"},
    ):
        headers = {"typ": TYPE, "kid": key_id(own.public_key()), **extra}
        with pytest.raises(TokenError, match="unknown key"):
            verifier.verify(jwt.encode(claims(role="admin"), own, algorithm="EdDSA", headers=headers))


@pytest.mark.parametrize(
    "kid", [None, "", "../../../../dev/null", "0' OR '1'='1", "\r\nX: y", 7, ["a"], {"$gt": ""}]
)
def test_a_key_is_found_by_its_id_alone(verifier: TokenVerifier, key: Ed25519PrivateKey, kid: Any) -> None:
    header = segment({"typ": TYPE, "alg": "EdDSA", "kid": kid})
    signed = f"{header}.{segment(claims())}"
    with pytest.raises(TokenError):
        verifier.verify(f"{signed}.{segment(key.sign(signed.encode()))}")


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": None}, {"crit": ["exp"]}, {"alg": "RS256"}])
def test_a_token_for_something_else_is_no_access_token(
    verifier: TokenVerifier, key: Ed25519PrivateKey, header: dict[str, Any]
) -> None:
    good = {"typ": TYPE, "alg": "EdDSA", "kid": key_id(key.public_key())}
    signed = f"{segment(good | header)}.{segment(claims())}"
    with pytest.raises(TokenError):
        verifier.verify(f"{signed}.{segment(key.sign(signed.encode()))}")


def test_another_role_needs_another_signature(verifier: TokenVerifier, key: Ed25519PrivateKey) -> None:
    header, _, signature = encode(key, claims()).split(".")
    with pytest.raises(TokenError):
        verifier.verify(f"{header}.{segment(claims(role='admin'))}.{signature}")


def test_keys_change_without_a_restart(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    verifier = TokenVerifier(tmp_path)
    old, _ = issue(key, "alice", "analyst")
    private, _ = generate_keys(tmp_path)
    new, _ = issue(read_private_key(private), "alice", "analyst")

    assert verifier.verify(old).subject == verifier.verify(new).subject == "alice"
    (tmp_path / f"{key_id(key.public_key())}.pub").unlink()
    assert verifier.verify(new).subject == "alice"
    with pytest.raises(TokenError, match="unknown key"):
        verifier.verify(old)


def test_a_revoked_token_proves_nothing_from_then_on(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    verifier = TokenVerifier(tmp_path)
    token, said = issue(key, "alice", "analyst")
    other, _ = issue(key, "alice", "analyst")
    assert verifier.verify(token)
    revoke(tmp_path, said.jti)
    with pytest.raises(TokenError, match="revoked"):
        verifier.verify(token)
    with pytest.raises(TokenError, match="revoked"):
        TokenVerifier(tmp_path).verify(token)
    assert verifier.verify(other)


@pytest.mark.parametrize("token_id", ["", "a b", "a\nb", "a\n"])
def test_one_line_of_the_list_is_one_token(tmp_path: Path, token_id: str) -> None:
    with pytest.raises(ValueError, match="no id"):
        revoke(tmp_path, token_id)
    assert list(tmp_path.iterdir()) == []


def test_without_keys_nothing_is_verified(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    verifier = TokenVerifier(tmp_path)
    token, _ = issue(key, "alice", "analyst")
    for path in tmp_path.glob("*.pub"):
        path.unlink()
    with pytest.raises(KeyFileError):
        verifier.verify(token)
    with pytest.raises(KeyFileError):
        TokenVerifier(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_text_but_an_issued_one_proves_anything(
    verifier: TokenVerifier, key: Ed25519PrivateKey, data: st.DataObject
) -> None:
    good = encode(key, claims())
    at = data.draw(st.integers(0, len(good) - 1))
    forged = data.draw(
        st.one_of(
            st.text(), st.binary().map(segment), st.just(good[:at]),
            st.characters().map(lambda c: good[:at] + c + good[at + 1 :]),
        )
    )  # fmt: skip
    # The last character of a segment holds bits that no decoder reads.
    if forged == good or (len(forged) == len(good) and forged[:-1] == good[:-1]):
        return
    with pytest.raises(TokenError):
        verifier.verify(forged)
