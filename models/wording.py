"""The same reasons in the words of a language model, behind any endpoint that speaks OpenAI's chat API.

Optional, and never in the way: where there is no endpoint, or it is too slow, wrong or suspicious, the
template stands. The endpoint is told the verdict, the score, and codes and facts with rounded values; ids,
addresses, places, names and the rules that hit stay here. What it answers is shown and decides nothing.
"""

import queue
import re
import time
from http.client import HTTPException, HTTPResponse
from threading import BoundedSemaphore, Thread
from typing import Annotated, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from events.types import Verdict
from models.reasons import leading, reasons, rounded

INSTRUCTION: Final = (
    "You tell an analyst why a card-fraud detector decided as it did. Write one or two plain English "
    "sentences from the facts in the user's message, the weightiest first, and from nothing else. Give "
    "numbers as they stand, draw no further conclusion, recommend nothing, use no markup."
)
MAX_ANSWER_BYTES: Final = 64 << 10
MAX_CHARACTERS: Final = 600
"""Of the text in an answer."""
MAX_OPEN: Final = 4
"""Requests open at a time, those that outlived their limit among them."""

_NUMBER: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9 .,;:!?'\"%+()€$£/‘’“”–—-]+")  # noqa: RUF001 - typographic on purpose
_LINK: Final = re.compile(r"://|\bwww\.|\b[a-z0-9-]+\.(?:[a-z]{2,})/", re.IGNORECASE)
_OTHER_VERDICT: Final[dict[Verdict, re.Pattern[str]]] = {
    "approve": re.compile(r"block|review", re.IGNORECASE),
    "review": re.compile(r"block|approv", re.IGNORECASE),
    "block": re.compile(r"approv", re.IGNORECASE),
}


class WordingError(Exception):
    """There is no text that can be shown; the message says why."""


class LanguageModelSettings(BaseSettings):
    """Where a language model answers, from the environment (prefix FRAUDSTREAM_LLM_)."""

    model_config = SettingsConfigDict(env_prefix="FRAUDSTREAM_LLM_", extra="ignore")

    url: HttpUrl = Field(description="base URL of the API, such as https://HOST/v1")
    model: str = Field(min_length=1)
    key: SecretStr | None = None
    timeout_s: float = Field(5.0, gt=0, le=60, description="limit of one answer, whatever the endpoint does")


class Fact(msgspec.Struct, frozen=True):
    """A reason as it may leave the house."""

    code: str
    fact: str


class Facts(msgspec.Struct, frozen=True):
    """All that a language model is told of a decision."""

    verdict: Verdict
    score: float
    facts: list[Fact]


def facts(
    verdict: Verdict, score: float, contributions: NDArray[np.float64], features: NDArray[np.float32]
) -> Facts:
    """What may be told of a decision with contributions f8 [N_FEATURES] of features f4 [N_FEATURES]."""
    named = leading(reasons(contributions, rounded(features)), verdict)
    return Facts(verdict, round(score, 2), [Fact(reason.code, reason.text) for reason in named])


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct):
    choices: Annotated[list[_Choice], Meta(min_length=1)]


class _NoRedirect(HTTPRedirectHandler):
    """The key is for the endpoint that was set up and for no other."""

    def redirect_request(self, *_: object) -> None:
        return


class LanguageModel:
    """A language model behind an endpoint. Safe for use by several threads."""

    def __init__(self, settings: LanguageModelSettings) -> None:
        self._url = f"{str(settings.url).rstrip('/')}/chat/completions"
        self._model = settings.model
        self._limit_s = settings.timeout_s
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if settings.key is not None:
            self._headers["Authorization"] = f"Bearer {settings.key.get_secret_value()}"
        self._opener = build_opener(_NoRedirect)
        self._places = BoundedSemaphore(MAX_OPEN)

    def word(self, told: Facts) -> str:
        """The facts in one or two sentences. Raises WordingError within the limit where there are none."""
        content = msgspec.json.encode(told).decode()
        body = {
            "model": self._model,
            "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": content}],
            "max_tokens": 200,
            "temperature": 0,
        }
        raw = self._within_limit(msgspec.json.encode(body))
        try:
            answer = msgspec.json.decode(raw, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WordingError("the answer is not that of a chat API") from error
        return cleaned(answer.choices[0].message.content, told)

    def _within_limit(self, body: bytes) -> bytes:
        """The body of the answer.

        The request has a thread of its own: a time limit of sockets holds for each step and not for all, and
        none holds for looking up a name. One that goes on after the limit keeps a place until it ends.
        """
        if not self._places.acquire(blocking=False):
            raise WordingError("too many requests are still open")
        answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        Thread(target=self._ask, args=(body, answers), daemon=True).start()
        try:
            answer = answers.get(timeout=self._limit_s)
        except queue.Empty:
            raise WordingError(f"no answer within {self._limit_s:g} s") from None
        if isinstance(answer, WordingError):
            raise answer
        if isinstance(answer, HTTPError):
            raise WordingError(f"status {answer.code}") from answer
        if isinstance(answer, Exception):
            raise WordingError(type(answer).__name__) from answer
        return answer

    def _ask(self, body: bytes, answers: queue.SimpleQueue[bytes | Exception]) -> None:
        request = Request(self._url, body, self._headers)  # noqa: S310 - the settings take http and https only
        deadline = time.monotonic() + self._limit_s
        try:
            with self._opener.open(request, timeout=self._limit_s) as response:
                answers.put(_read(response, deadline))
        except (OSError, HTTPException, ValueError, WordingError) as error:
            answers.put(error)
        finally:
            self._places.release()


def cleaned(text: str, told: Facts) -> str:
    """A language model's text on one line, without control characters.

    Raises WordingError for text that is empty, too long or more than plain prose, holds a link or a number
    that it was not told, or speaks of another verdict: then it is not about these facts.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not line or len(line) > MAX_CHARACTERS:
        raise WordingError(f"{len(line)} characters of text")
    if not _PLAIN.fullmatch(line) or _LINK.search(line):
        raise WordingError("the text is not plain prose")
    source = msgspec.json.encode(told).decode()
    if not _numbers(line) <= _numbers(source):
        raise WordingError("the text holds numbers that are not among the facts")
    if _OTHER_VERDICT[told.verdict].search(line):
        raise WordingError("the text speaks of another verdict")
    return line


def _numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in _NUMBER.findall(text)}


def _read(response: HTTPResponse, deadline: float) -> bytes:
    """The body. Raises WordingError where it is too large or not there in time."""
    body = bytearray()
    while chunk := response.read1(MAX_ANSWER_BYTES):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise WordingError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise WordingError("the answer takes too long")
    return bytes(body)
