"""The feedback join: bytes per decision in its state, decisions and labels a second on one core."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.engine import ARTEFACT, Memory, payloads
from events.codec import Decoder
from events.decision import Decision, decision_id
from events.feedback import Feedback
from events.transaction import Transaction
from models.artefact import load_model
from models.scorer import Scorer
from models.signing import TRUSTED_KEYS, Keyring
from online_learning.join import FeedbackJoin, JoinSettings
from online_learning.waiting import Received
from state.columns import field_values, transaction_array
from state.contract import CONTRACT_VERSION, U
from state.engine import TerminalEngine, UserEngine

BATCH = 500
BEST_OF = 3
CHUNK = 4096
KEPT = {
    "kept by default": JoinSettings(),
    "all kept whole": JoinSettings(floor=0.0),
    "none kept whole": JoinSettings(floor=1.0, sample=0.0),
}


class Room(Memory):
    """A MapState in a dict."""

    remove = dict.__delitem__


class Measured(NamedTuple):
    """decisions, labels: a second, best of BEST_OF; bytes: mean of a decision in the state, with its key."""

    what: str
    decisions: float
    labels: float
    kept: int
    bytes: float


def decisions() -> Iterator[Decision]:
    """Decisions of the first model on simulated transactions."""
    keyring = Keyring.read(TRUSTED_KEYS)
    scorer = Scorer(load_model(ARTEFACT, keyring), keyring)
    users, terminals = UserEngine(Memory()), TerminalEngine(Memory())
    decoder, raw = Decoder(Transaction), payloads()
    for start in range(0, len(raw), CHUNK):
        part = [t for t in decoder.decode(raw[start : start + CHUNK]) if isinstance(t, Transaction)]
        array = transaction_array([field_values(t) for t in part])
        user, _ = users.features([t.user_id for t in part], array)
        terminal = terminals.features([t.terminal_id for t in part], array, user[:, U.USER_FRAUDS].copy())
        features = np.concatenate((user, terminal), axis=1)
        scores = scorer.score(features)
        verdicts = scorer.verdicts(scores.score)
        for i, t in enumerate(part):
            parts = {name: float(given[i]) for name, given in scores.parts.items()}
            at = int(array["time"][i])
            yield Decision(
                t.user_id, t.transaction_id, decision_id(t.user_id, t.transaction_id), at, t.amount,
                verdicts[i], float(scores.score[i]), scores.model_version, CONTRACT_VERSION,
                features[i].tobytes(), at + 20, t.terminal_id, t.currency, t.country, t.channel, parts=parts,
            )  # fmt: skip


def measure() -> Iterator[Measured]:
    """Every decision once, then a chargeback on each, by what is kept."""
    made = list(decisions())
    now_ms = made[-1].event_time + 1000
    decided = [Received(n, d.user_id, msgspec.json.encode(d)) for n, d in enumerate(made)]
    said = [
        Received(
            n,
            d.transaction_id,
            msgspec.json.encode(
                Feedback(
                    transaction_id=d.transaction_id, label="fraud", source="chargeback", labelled_at=now_ms
                )
            ),
        )
        for n, d in enumerate(made)
    ]
    for what, settings in KEPT.items():
        rates = []
        for _ in range(BEST_OF):
            state = Memory()
            join = FeedbackJoin(settings, state, Memory(), Room())
            start = time.perf_counter()
            kept = sum(join.join(part, now_ms=now_ms).kept for part in _batches(decided))
            between = time.perf_counter()
            size = sum(len(k) + len(v) for k, v in state.items()) / len(state)
            resumed = time.perf_counter()
            for part in _batches(said):
                join.join(feedback=part, now_ms=now_ms)
            rates.append((len(made) / (between - start), len(said) / (time.perf_counter() - resumed)))
        best_decisions, best_labels = map(max, zip(*rates, strict=True))
        yield Measured(what, best_decisions, best_labels, kept, size)


def _batches(records: Sequence[Received]) -> Iterator[Sequence[Received]]:
    return (records[first : first + BATCH] for first in range(0, len(records), BATCH))


if __name__ == "__main__":
    for measured in measure():
        print(measured, flush=True)
