"""Transactions in: one, an array, or a stream of lines; read by the decoder of the scoring job itself."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from events.avro import CONFLUENT, SINGLE_OBJECT
from events.decision import decision_id
from events.invalid import Invalid, refuse
from events.transaction import Transaction
from events.types import IDENTIFIER_PATTERN
from serving.control import now_ms
from serving.gateway import openapi
from serving.gateway.access import permitted
from serving.gateway.problems import FieldError, Problem, unavailable
from serving.gateway.publisher import Delivery
from serving.gateway.services import Services, services_of
from serving.security.permissions import Principal
from serving.security.shared import SharedStateAwayError

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
MAX_ARRAY: Final = 10_000
MAX_LINE: Final = 64 << 10
MAX_ERRORS: Final = 1_000
BATCH: Final = 500
IDEMPOTENCY_MS: Final = 24 * 3_600_000
PENDING: Final = b"pending"

_KEY: Final = re.compile(IDENTIFIER_PATTERN)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])

Numbered = tuple[int, bytes | None]
"""A line or element, counted from 1, and its bytes; None for one that is too long."""

router = APIRouter(tags=["transactions"])


class Taken(msgspec.Struct, frozen=True):
    """Ids of one transaction that Kafka has; `prediction_id` asks for its decision."""

    transaction_id: str
    prediction_id: str


class Receipt(msgspec.Struct, frozen=True):
    """What became of a request. `errors` lists the first MAX_ERRORS of what was refused."""

    accepted: int
    refused: int
    ids: list[Taken]
    errors: list[FieldError]


@router.post("/transactions/ingest", status_code=202, **openapi.INGEST)
async def ingest(
    request: Request,
    principal: Annotated[Principal, Depends(permitted("transactions:ingest"))],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Take transactions: one JSON object, an array of them, or NDJSON with one a line.

    202 tells that Kafka has all that is counted as accepted. What was refused is listed with field and reason
    and was not sent; if nothing was good, the answer is a problem. Sending a transaction again is safe: the
    scoring job drops repeats by `transaction_id`.
    """
    kind = media_type(request, JSON, NDJSON)
    key = request.headers.get("idempotency-key")
    if key is None:
        return _answer(await _take(request, services, _elements(request, kind)))
    if len(key) > 128 or not _KEY.fullmatch(key):
        raise Problem(
            400, "bad-idempotency-key", "Idempotency-Key is no identifier of at most 128 characters"
        )
    return await _once(request, services, kind, f"fs:idempotency:{principal.subject}:{key}")


def media_type(request: Request, *allowed: str) -> str:
    """The one of the request. Raises Problem for any that is not allowed."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given not in allowed:
        raise Problem(415, "unsupported-media-type", f"Content-Type must be {' or '.join(allowed)}")
    return given


async def _once(request: Request, services: Services, kind: str, key: str) -> Response:
    """The answer to the first request under this key, for 24 hours."""
    body = await request.body()
    target = b"\n".join((request.url.path.encode(), kind.encode(), body))
    fingerprint = hashlib.sha256(target).hexdigest().encode()
    try:
        first = await services.shared.claim(key, fingerprint + PENDING, IDEMPOTENCY_MS)
        known = None if first else await services.shared.get(key)
    except SharedStateAwayError as error:
        raise unavailable("idempotency-away", "Idempotency-Key cannot be honoured now", 5) from error
    if known is not None:
        return _repeated(known, fingerprint)
    try:
        receipt = await _take(request, services, _elements(request, kind))
    except BaseException:
        await _keep(services, key, None)
        raise
    await _keep(services, key, fingerprint + msgspec.json.encode(receipt))
    return _answer(receipt)


def _repeated(known: bytes, fingerprint: bytes) -> Response:
    held, answer = known[: len(fingerprint)], known[len(fingerprint) :]
    if held != fingerprint:
        raise Problem(422, "idempotency-key-reused", "Idempotency-Key was used with another request")
    if answer == PENDING:
        raise Problem(
            409, "idempotency-key-busy", "the first request with this Idempotency-Key is under way",
            {"Retry-After": "1"},
        )  # fmt: skip
    return Response(answer, 202, {"Idempotency-Replayed": "true"}, JSON)


async def _keep(services: Services, key: str, value: bytes | None) -> None:
    try:
        await services.shared.put(key, value, IDEMPOTENCY_MS)
    except SharedStateAwayError:
        return  # the key stays busy; repeats are dropped by transaction_id all the same


def _answer(receipt: Receipt) -> Response:
    return Response(msgspec.json.encode(receipt), 202, media_type=JSON)


async def _take(request: Request, services: Services, batches: AsyncIterator[list[Numbered]]) -> Receipt:
    """Send what is good. Raises Problem where nothing is, or where it is not known to be in Kafka."""
    delivery = Delivery(request.scope["correlation_id"])
    sent: list[tuple[int, Taken]] = []
    errors: list[FieldError] = []
    refused = 0
    topic, patience = services.topics.name("transactions"), services.settings.gateway_ack_s
    try:
        async for batch in batches:
            for number, value, record in _decoded(services, batch, request.scope["correlation_id"]):
                if isinstance(record, Invalid):
                    refused += 1
                    if len(errors) < MAX_ERRORS:
                        errors.append(FieldError.of(record, number))
                    continue
                await services.publisher.send(topic, record.user_id, value, delivery, patience)
                taken = Taken(record.transaction_id, decision_id(record.user_id, record.transaction_id))
                sent.append((number, taken))
            await asyncio.sleep(0)  # other requests have their turn
    except Problem as problem:
        problem.members |= {"sent": len(sent), "refused": refused}
        raise
    if not await delivery.complete(patience):
        # A broker that comes back still takes them, so the same ids must be used for another try.
        raise unavailable("kafka-away", "Kafka did not acknowledge in time; send the same again", 5)
    lost = dict(delivery.refused)
    errors += [FieldError("not_acknowledged", lost[i], None, sent[i][0]) for i in sorted(lost)]
    ids = [taken for i, (_, taken) in enumerate(sent) if i not in lost]
    if not ids:
        if lost:
            raise unavailable("kafka-away", "Kafka took none of the transactions", 5)
        if not refused:
            raise Problem(422, "empty", "there is no transaction in the body")
        raise Problem(422, "invalid", "no transaction is valid", refused=refused, errors=errors)
    return Receipt(len(ids), refused + len(lost), ids, errors[:MAX_ERRORS])


def _decoded(
    services: Services, batch: list[Numbered], correlation_id: str
) -> Iterator[tuple[int, bytes, Transaction | Invalid]]:
    """Number, value to send and record of each."""
    values = [b"" if value is None or is_avro(value) else value for _, value in batch]
    latest = now_ms() + services.settings.max_future_s * 1000
    for (number, given), value, record in zip(
        batch, values, services.transactions.decode(values, latest), strict=True
    ):
        if given is None:
            yield number, value, refuse("malformed_json", f"the line is longer than {MAX_LINE:,} bytes")
        elif value is not given:
            yield number, value, refuse("malformed_json", "the value is not JSON")
        elif isinstance(record, Transaction) and record.correlation_id is None:
            yield number, correlated(value, correlation_id), record
        else:
            yield number, value, record


def is_avro(value: bytes) -> bool:
    """Whether the decoder would take it for Avro, which is for Kafka alone."""
    return value.startswith((CONFLUENT, SINGLE_OBJECT))


def correlated(value: bytes, correlation_id: str) -> bytes:
    """A valid transaction with a correlation id as its first member, where it has none; else as it was."""
    # Only a text that holds the name, or escapes that may hide it, has to be read for it.
    if (b"correlation_id" in value or b"\\u" in value) and "correlation_id" in _MEMBERS.decode(value):
        return value
    brace = value.index(b"{") + 1
    return b'%b"correlation_id":"%b",%b' % (value[:brace], correlation_id.encode(), value[brace:])


async def _elements(request: Request, kind: str) -> AsyncIterator[list[Numbered]]:
    if kind == JSON:
        for batch in _in_batches(_of_json(await request.body())):
            yield batch
        return
    lines = Lines()
    async for chunk in request.stream():
        for batch in _in_batches(lines.feed(chunk)):
            yield batch
    for batch in _in_batches(lines.end()):
        yield batch


def _of_json(body: bytes) -> Iterable[Numbered]:
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return [(1, body)] if body.strip(b" \t\r\n") else []
    try:
        elements = _ELEMENTS.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(422, "malformed-json", f"the array cannot be read: {error}") from error
    if len(elements) > MAX_ARRAY:
        raise Problem(
            413, "too-many", f"an array has at most {MAX_ARRAY:,} transactions; NDJSON has no limit"
        )
    return [(number, bytes(element)) for number, element in enumerate(elements, 1)]


def _in_batches(elements: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    whole = list(elements)
    for start in range(0, len(whole), BATCH):
        yield whole[start : start + BATCH]


class Lines:
    """Lines out of a stream of chunks; holds one line at most, and of one too long nothing."""

    def __init__(self) -> None:
        self._number = 0
        self._rest = b""
        self._too_long = False

    def feed(self, chunk: bytes) -> list[Numbered]:
        """The lines that end in this chunk, without those that are blank."""
        *ended, rest = (self._rest + chunk).split(b"\n")
        found = list(filter(None, map(self._line, ended)))
        self._too_long = self._too_long or len(rest) > MAX_LINE
        self._rest = b"" if self._too_long else rest
        return found

    def end(self) -> list[Numbered]:
        """The last line, where no line feed ends it."""
        last = self._line(self._rest)
        return [] if last is None else [last]

    def _line(self, line: bytes) -> Numbered | None:
        self._number += 1
        too_long, self._too_long = self._too_long or len(line) > MAX_LINE, False
        if too_long:
            return self._number, None
        line = line.strip(b" \t\r")
        return (self._number, line) if line else None
