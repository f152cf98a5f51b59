"""Reading one JSON payload with every rule that msgspec does not hold, and saying what is wrong with it."""

import json
import re
from typing import Any

import msgspec

from events.invalid import Invalid, Reason, refuse

MAX_DEPTH = 32

_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)
_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`")
_WRONG_TYPE = re.compile(r"^Expected `[^`]*`, got `[^`]*`$")

# How msgspec's messages begin; the first match counts.
_REASONS: tuple[tuple[str, Reason], ...] = (
    ("Object contains unknown field", "unknown_field"),
    ("Expected `datetime` with", "bad_time"),
    ("Invalid RFC3339", "bad_time"),
    ("Invalid enum value", "unknown_value"),
    ("Invalid base64", "wrong_type"),
    ("Expected `str` matching", "bad_identifier"),
    ("Expected `", "out_of_range"),
    ("Number out of range", "out_of_range"),
    ("Integer value out of range", "out_of_range"),
    ("Timestamp is out of range", "out_of_range"),
)


class _RefusedError(Exception):
    def __init__(self, invalid: Invalid) -> None:
        super().__init__(invalid.detail)
        self.invalid = invalid


_NOT_FINITE = object()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(refuse("duplicate_key", "the key occurs more than once in one object", repeated))
    for key, value in pairs:
        if value is _NOT_FINITE:
            raise _RefusedError(refuse("not_finite", "NaN and Infinity are not JSON numbers", key))
    return members


# parse_int=float: the tree only serves to find faults, and int() is quadratic in the digits.
_PARSER = json.JSONDecoder(object_pairs_hook=_object, parse_int=float, parse_constant=lambda _: _NOT_FINITE)


def parse(payload: bytes) -> dict[str, Any] | Invalid:
    """The members of the one JSON object that `payload` is; numbers are floats, whatever they were.

    Refuses repeated keys and NaN at every level, more than MAX_DEPTH levels, anything but UTF-8 without
    byte order mark, and characters that are half a surrogate pair.
    """
    try:
        text = payload.decode()
        encoded = True
    except UnicodeDecodeError:
        # Each wrong byte becomes a lone surrogate, so that the field that holds it can be named below.
        text = payload.decode(errors="surrogateescape")
        encoded = False
    if _too_deep(text):
        return refuse("too_deep", f"arrays and objects nest deeper than {MAX_DEPTH} levels")
    try:
        tree = _PARSER.decode(text)
    except json.JSONDecodeError as error:
        if not encoded:
            return refuse("invalid_utf8", "the value is not UTF-8")
        return refuse("malformed_json", f"{error.msg} at character {error.pos}")
    except _RefusedError as refused:
        return refused.invalid
    if not encoded or "\\u" in text:
        garbled = _garbled_member(tree)
        if garbled is not None or not encoded:
            return refuse("invalid_utf8", "bytes that are not UTF-8, or half a surrogate pair", garbled)
    if not isinstance(tree, dict):
        return refuse("wrong_type", "the value is not a JSON object")
    return tree


def _too_deep(text: str) -> bool:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _BRACKETS.finditer(text):
        symbol = text[token.start()]
        if symbol in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif symbol in "}]":
            depth -= 1
    return False


def _garbled_member(tree: Any) -> str | None:
    if not isinstance(tree, dict):
        return None
    return next((key for key, value in tree.items() if not (_is_unicode(key) and _is_unicode(value))), None)


def _is_unicode(value: Any) -> bool:
    """Whether all text in a parsed value can be written as UTF-8; at most MAX_DEPTH levels deep."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(_is_unicode(key) and _is_unicode(member) for key, member in value.items())
    if isinstance(value, list):
        return all(map(_is_unicode, value))
    return True


def explain(error: msgspec.MsgspecError | UnicodeError | RecursionError) -> Invalid:
    """What msgspec found wrong, by reason and field."""
    message = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return refuse("malformed_json", message)
    at = _AT.search(message)
    field = (at["path"] or None) if at else None
    if at:
        message = message[: at.start()]
    missing = _MISSING.match(message)
    if missing:
        path = missing["field"] if field is None else f"{field}.{missing['field']}"
        return refuse("missing_field", "the field is required", path)
    if _WRONG_TYPE.match(message):
        return refuse("wrong_type", message, field)
    for beginning, reason in _REASONS:
        if message.startswith(beginning):
            return refuse(reason, message, field)
    return refuse("inconsistent", message, field)
