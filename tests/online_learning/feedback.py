"""Decisions and feedback for tests of the join, and its state in dicts."""

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from events.decision import Decision, decision_id
from events.feedback import Feedback
from online_learning.join import FeedbackJoin, Joined, JoinSettings
from online_learning.waiting import Received
from state.contract import CONTRACT_VERSION, N_FEATURES

EVENT_MS = 1_790_000_000_000
NOW_MS = EVENT_MS + 200 * 86_400_000
KEEP_ALL = JoinSettings(floor=0.0)


class Memory(dict[str, bytes]):
    """Keyed state in a dict."""

    put = dict.__setitem__
    remove = dict.__delitem__


def features(seed: int = 0) -> bytes:
    return np.random.default_rng(seed).normal(size=N_FEATURES).astype("<f4").tobytes()


def decision(transaction_id: str = "t-1", user_id: str = "u-1", **changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "user_id": user_id,
        "transaction_id": transaction_id,
        "decision_id": decision_id(user_id, transaction_id),
        "event_time": EVENT_MS,
        "amount": 12.5,
        "decision": "approve",
        "score": 0.25,
        "model_version": "gbt-1",
        "contract_version": CONTRACT_VERSION,
        "features": features(),
        "decided_at": EVENT_MS + 20,
        "terminal_id": "terminal-1",
        "parts": {"trees": 0.25},
    }
    return Decision(**fields | changes)


def verdict(transaction_id: str | None = "t-1", **changes: Any) -> Feedback:
    fields: dict[str, Any] = {
        "transaction_id": transaction_id,
        "label": "fraud",
        "source": "analyst",
        "labelled_at": EVENT_MS + 60_000,
        "analyst_id": "analyst-7",
    }
    return Feedback(**fields | changes)


class Desk:
    """A join whose records are numbered as they come; its state survives `restart`."""

    def __init__(self, settings: JoinSettings = KEEP_ALL) -> None:
        self._settings = settings
        self.transactions, self.anomalies, self.room = Memory(), Memory(), Memory()
        self._position = 0
        self.restart()

    def restart(self) -> None:
        self.join = FeedbackJoin(self._settings, self.transactions, self.anomalies, self.room)

    def received(self, key: str | None, record: msgspec.Struct | bytes | None) -> Received:
        self._position += 1
        value = msgspec.json.encode(record) if isinstance(record, msgspec.Struct) else record
        return Received(self._position, key, value)

    def decide(self, *decisions: Decision, now_ms: int = NOW_MS) -> Joined:
        """Decisions, and those that were not approved under their own id too."""
        received = [self.received(d.user_id, d) for d in decisions]
        anomalies = [r for d, r in zip(decisions, received, strict=True) if d.decision != "approve"]
        return self.join.join(received, anomalies, now_ms=now_ms)

    def tell(self, *feedback: Feedback, now_ms: int = NOW_MS) -> Joined:
        """Feedback under the key that is due."""
        keyed = [self.received(f.transaction_id or f.anomaly_id, f) for f in feedback]
        return self.join.join(feedback=keyed, now_ms=now_ms)

    def send(self, records: Iterable[tuple[str | None, bytes | None]], now_ms: int = NOW_MS) -> Joined:
        return self.join.join(feedback=[self.received(k, v) for k, v in records], now_ms=now_ms)
