"""Signatures: who vouches for an artefact, and whose word the reader takes.

Ed25519 (RFC 8032) over the exact bytes of a manifest. A signature is a file of one line,

    ed25519 KEY_ID SIGNATURE

with key id and signature in lowercase hexadecimal. One signature can be written in one way only, so that no
byte of the file can change unnoticed.
"""

import hashlib
import re
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TRUSTED_KEYS = Path(__file__).resolve().parent / "keys"
"""Public keys that are trusted where nothing else is said."""
KEY_ID_BYTES = 8

_SIGNATURE = re.compile(rb"ed25519 ([0-9a-f]{16}) ([0-9a-f]{128})\n")


class KeyFileError(Exception):
    """A file or folder of keys is missing, or holds something else; the message says which and what."""


class SignatureError(Exception):
    """Nobody who is trusted vouches for the data; the message says why not."""


class TrustedKey(msgspec.Struct, frozen=True):
    """name: that of its file, without `.pub`; public: the key itself, 32 bytes."""

    name: str
    public: bytes


class Keyring(msgspec.Struct, frozen=True):
    """The public keys whose signatures count, by key id.

    allow_unsigned: take what carries no signature; one that is there must hold all the same.
    """

    keys: dict[str, TrustedKey]
    allow_unsigned: bool = False

    @classmethod
    def read(cls, folder: Path, allow_unsigned: bool = False) -> "Keyring":
        """The keys in the `*.pub` files of a folder.

        Raises KeyFileError where one is no Ed25519 key in PEM, or where there is none although one is needed.
        """
        keys = {}
        for path in sorted(folder.glob("*.pub")):
            public = _read_public_key(path)
            keys[key_id(public)] = TrustedKey(path.stem, public.public_bytes_raw())
        if not keys and not allow_unsigned:
            raise KeyFileError(f"{folder}: there are no trusted keys, *.pub")
        return cls(keys, allow_unsigned)

    def signer(self, data: bytes, signature: bytes | None) -> str | None:
        """Name of the key that signed the data; None where it need not be signed and is not.

        Raises SignatureError for any other.
        """
        if signature is None:
            if self.allow_unsigned:
                return None
            raise SignatureError("there is no signature")
        line = _SIGNATURE.fullmatch(signature)
        if line is None:
            raise SignatureError("the signature is malformed")
        identity = line[1].decode()
        key = self.keys.get(identity)
        if key is None:
            raise SignatureError(f"signed by {identity}, which is not among the trusted keys")
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(bytes.fromhex(line[2].decode()), data)
        except InvalidSignature:
            raise SignatureError(f"this is not what {key.name} signed") from None
        return key.name


def key_id(public: Ed25519PublicKey) -> str:
    """What signatures call a key: the first bytes of its SHA-256, in hexadecimal."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[: 2 * KEY_ID_BYTES]


def sign(data: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of a signature file for the data."""
    return f"ed25519 {key_id(key.public_key())} {key.sign(data).hex()}\n".encode()


def generate_keys(folder: Path) -> tuple[Path, Path]:
    """Write a new private key, for its owner's eyes only, and its public key; both are named by key id.

    Raises OSError where they cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    folder.mkdir(parents=True, exist_ok=True)
    private, public = (folder / f"{key_id(key.public_key())}.{kind}" for kind in ("key", "pub"))
    private.touch(mode=0o600, exist_ok=False)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file without a password. Raises KeyFileError where there is none."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is no private key without a password in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} is no Ed25519 key")
    return key


def _read_public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} is no Ed25519 key")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
