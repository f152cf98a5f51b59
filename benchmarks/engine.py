"""The bare engine on one core: all features, by batch size, without and with JSON and the model."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.traffic import record
from events.codec import Decoder
from events.decision import Decision, decision_id
from events.transaction import Transaction
from models.artefact import load_model
from models.scorer import Scorer
from models.signing import TRUSTED_KEYS, Keyring
from state.columns import field_values, transaction_array
from state.contract import CONTRACT_VERSION, U
from state.engine import TerminalEngine, UserEngine

ARTEFACT = Path(__file__).resolve().parent.parent / "models" / "artefacts" / "first"
EVENTS = 60_000
LEAST_S = 2.0


class Memory(dict[str, bytes]):
    """Keyed state in a dict."""

    put = dict.__setitem__


class Rate(NamedTuple):
    """Events a second of one measurement."""

    what: str
    batch: int
    per_second: float


def payloads() -> list[bytes]:
    """Simulated transactions in wire form."""
    return [
        b'{"transaction_id":"%d","user_id":"%b","event_time":%d%b' % (n, r.user, r.event_time, r.rest)
        for n, r in enumerate(record(5_000, EVENTS))
    ]


def _rate(run: Callable[[int, int], None], batch: int) -> float:
    """Best of three passes over at least LEAST_S seconds each, after a warm-up."""
    run(0, batch)
    best = 0.0
    for _ in range(3):
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < LEAST_S and done + batch <= EVENTS:
            run(done, done + batch)
            done += batch
        best = max(best, done / (time.perf_counter() - start))
    return best


def features_only(raw: list[bytes], batches: Iterable[int]) -> list[Rate]:
    """Decoded transactions in, all features out."""
    transactions = [msgspec.json.decode(p, type=Transaction) for p in raw]
    rates = []
    for batch in batches:
        users, terminals = UserEngine(Memory()), TerminalEngine(Memory())

        def run(
            start: int, end: int, users: UserEngine = users, terminals: TerminalEngine = terminals
        ) -> None:
            part = transactions[start:end]
            array = transaction_array([field_values(t) for t in part])
            user, _ = users.features([t.user_id for t in part], array)
            terminals.features([t.terminal_id for t in part], array, user[:, U.USER_FRAUDS].copy())

        rates.append(Rate("features", batch, _rate(run, batch)))
    return rates


def json_to_json(raw: list[bytes], batches: Iterable[int], parts: frozenset[str] | None = None) -> list[Rate]:
    """JSON in, checks, features, the first model or some parts of it, decision JSON out."""
    keyring = Keyring.read(TRUSTED_KEYS)
    decoder, encoder = Decoder(Transaction), msgspec.json.Encoder()
    model = load_model(ARTEFACT, keyring)
    if parts is not None:
        model.parts = {name: part for name, part in model.parts.items() if name in parts}
    scorer = Scorer(model, keyring)
    what = f"JSON in, {' + '.join(model.parts)}, JSON out"
    rates = []
    for batch in batches:
        users, terminals = UserEngine(Memory()), TerminalEngine(Memory())

        def run(
            start: int, end: int, users: UserEngine = users, terminals: TerminalEngine = terminals
        ) -> None:
            part = [t for t in decoder.decode(raw[start:end]) if isinstance(t, Transaction)]
            rows = [field_values(t) for t in part]
            array = transaction_array(rows)
            user, _ = users.features([t.user_id for t in part], array)
            frauds = user[:, U.USER_FRAUDS].copy()
            terminal = terminals.features([t.terminal_id for t in part], array, frauds)
            features = np.concatenate((user, terminal), axis=1)
            scores = scorer.score(features)
            levels = scorer.verdicts(scores.score)
            for i, (t, score, verdict) in enumerate(zip(part, scores.score.tolist(), levels, strict=True)):
                encoder.encode(
                    Decision(
                        t.user_id, t.transaction_id, decision_id(t.user_id, t.transaction_id), rows[i][2],
                        t.amount, verdict, score, scores.model_version, CONTRACT_VERSION,
                        features[i].tobytes(), 0, t.terminal_id, t.currency, t.country, t.channel,
                    )
                )  # fmt: skip

        rates.append(Rate(what, batch, _rate(run, batch)))
    return rates


def measure() -> list[Rate]:
    """All of them."""
    raw = payloads()
    return [
        *features_only(raw, (1, 4, 16, 64, 500)),
        *json_to_json(raw, (1, 64, 500)),
        *json_to_json(raw, (1, 64, 500), frozenset({"gbt"})),
    ]


if __name__ == "__main__":
    for rate in measure():
        print(f"{rate.what:36} batch {rate.batch:4}  {rate.per_second:10,.0f}/s", flush=True)
