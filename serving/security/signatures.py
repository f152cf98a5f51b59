"""Signed requests, version 2: HMAC-SHA256 (RFC 2104) over all of a request that matters.

    Authorization: FRAUDSTREAM-HMAC-V2 client=ID, timestamp=MS, nonce=NONCE, signature=HEX

signs the lines, joined by a line feed,

    FRAUDSTREAM-HMAC-V2 | client | METHOD | path with query, as sent | timestamp | nonce | SHA-256 of the body

A timestamp, in milliseconds since the epoch, may differ from the clock by 120 s. A nonce counts once: the
caller sees to that after `verify`, never before, or whoever knows a nonce could use it up.
"""

import hashlib
import hmac
import re
from typing import Final, NamedTuple

SCHEME: Final = "FRAUDSTREAM-HMAC-V2"
SKEW_MS: Final = 120_000

# One spelling only, and no character that could end a line or a parameter.
_HEADER: Final = re.compile(
    SCHEME + r" client=(?P<client>[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}), timestamp=(?P<timestamp>[0-9]{13}),"
    r" nonce=(?P<nonce>[A-Za-z0-9_-]{16,64}), signature=(?P<signature>[0-9a-f]{64})"
)


class SignatureError(Exception):
    """The request is not what a known client signed just now. The message is for the log."""


class Request(NamedTuple):
    """What is signed of a request: target is path and query as they stand on the wire."""

    method: str
    target: bytes
    body: bytes


class Authorization(NamedTuple):
    """The parameters of the header; timestamp in milliseconds since the epoch."""

    client: str
    timestamp: int
    nonce: str
    signature: str


def parse(header: str) -> Authorization:
    """The parameters of a header. Raises SignatureError for any other text."""
    found = _HEADER.fullmatch(header)
    if found is None:
        raise SignatureError("the header is malformed")
    return Authorization(found["client"], int(found["timestamp"]), found["nonce"], found["signature"])


def sign(request: Request, client: str, secret: bytes, timestamp: int, nonce: str) -> str:
    """The Authorization header of a request."""
    signature = _signature(request, client, secret, timestamp, nonce)
    return f"{SCHEME} client={client}, timestamp={timestamp}, nonce={nonce}, signature={signature}"


def verify(request: Request, given: Authorization, secret: bytes, now_ms: int) -> None:
    """Raises SignatureError where the request is not what the client signed, or not now."""
    if abs(now_ms - given.timestamp) > SKEW_MS:
        raise SignatureError(f"the timestamp is {now_ms - given.timestamp} ms old")
    expected = _signature(request, given.client, secret, given.timestamp, given.nonce)
    if not hmac.compare_digest(expected, given.signature):
        raise SignatureError("the signature is wrong")


def _signature(request: Request, client: str, secret: bytes, timestamp: int, nonce: str) -> str:
    body = hashlib.sha256(request.body).hexdigest()
    lines = (
        SCHEME.encode(),
        client.encode(),
        request.method.encode(),
        request.target,
        str(timestamp).encode(),
        nonce.encode(),
        body.encode(),
    )
    return hmac.new(secret, b"\n".join(lines), hashlib.sha256).hexdigest()
