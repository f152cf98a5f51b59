"""One pass over a batch of JSON payloads that singles out those needing a closer look."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

PLAIN, LABELLED, SUSPECT = 0, 1, 2
"""PLAIN: one flat object without repeated keys, every string value an identifier.
LABELLED: the same, but some string has characters that only LABEL_PATTERN allows.
SUSPECT: anything else. Only valid for a payload that also is valid JSON, which the scan does not check."""

MAX_KEYS = 64


def _character_classes() -> npt.NDArray[np.uint8]:
    classes = np.full(256, SUSPECT, np.uint8)
    letters_and_digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    classes[list(letters_and_digits + b"._:@/+=-")] = PLAIN
    classes[list(b" &,()")] = LABELLED
    return classes


CLASSES = _character_classes()
LEADS = np.where(CLASSES == PLAIN, PLAIN, SUSPECT).astype(np.uint8)
LEADS[list(b"._:@/+=-")] = SUSPECT


_ONE = np.uint64(1)  # unsigned indices: numba wraps signed ones around, which costs a third of the scan


@njit(cache=True)
def _scan(
    buffer: npt.NDArray[np.uint8], lengths: npt.NDArray[np.uint64], flags: npt.NDArray[np.uint8]
) -> None:
    """Write the class of every payload into `flags`; the payloads follow each other in `buffer`."""
    hashes = np.empty(MAX_KEYS, np.uint64)
    start = np.uint64(0)
    for payload in range(lengths.shape[0]):
        end = start + lengths[payload]
        flags[payload] = _scan_one(buffer, start, end, hashes)
        start = end


@njit(cache=True)
def _scan_one(  # noqa: C901, PLR0912 - one state machine, one loop
    buffer: npt.NDArray[np.uint8], start: np.uint64, end: np.uint64, hashes: npt.NDArray[np.uint64]
) -> int:
    i = start
    while i < end and buffer[i] <= 32:
        i += _ONE
    if i == end or buffer[i] != 123:  # {
        return SUSPECT
    i += _ONE
    keys = 0
    key_comes = True
    taken = np.uint64(0)  # one bit per key seen, chosen by its hash: most keys need no comparison
    found = np.uint8(PLAIN)
    while i < end:
        byte = buffer[i]
        i += _ONE
        if byte == 44:  # ,
            key_comes = True
        elif byte == 123 or byte == 91:  # noqa: PLR1714 - { or [: nested; numba compiles no tuple test here
            return SUSPECT
        elif byte == 34:  # "
            if key_comes:
                key_comes = False
                code = np.uint64(0)
                while i < end:
                    byte = buffer[i]
                    if byte == 34:
                        break
                    found |= CLASSES[byte]
                    code = ((code << np.uint64(5)) | (code >> np.uint64(59))) ^ np.uint64(byte)
                    i += _ONE
                code *= np.uint64(0x9E3779B97F4A7C15)
                bit = _ONE << (code >> np.uint64(58))
                if taken & bit:
                    for k in range(keys):
                        if hashes[k] == code:  # equal keys, or a collision that costs the slow path
                            return SUSPECT
                if keys == MAX_KEYS:
                    return SUSPECT
                taken |= bit
                hashes[keys] = code
                keys += 1
            else:
                if i < end:
                    found |= LEADS[buffer[i]]  # of a closing quote too: an empty string is SUSPECT
                while i < end:
                    byte = buffer[i]
                    if byte == 34:
                        break
                    found |= CLASSES[byte]
                    i += _ONE
            if found >= SUSPECT:
                return SUSPECT
            i += _ONE
    return int(found)


def scan(payloads: Sequence[bytes]) -> bytes:
    """The class of each payload, one byte each."""
    buffer = np.frombuffer(b"".join(payloads), np.uint8)
    lengths = np.fromiter(map(len, payloads), np.uint64, len(payloads))
    flags = np.empty(len(payloads), np.uint8)
    _scan(buffer, lengths, flags)
    return flags.tobytes()
