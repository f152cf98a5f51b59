"""Decisions and labels for the tests of serving."""

from typing import Any

import numpy as np

from events.decision import Decision, decision_id
from events.feedback import Label
from serving.security.personal import Person, Persons, Pseudonyms, Seals
from serving.views import ViewSettings
from state.contract import CONTRACT_VERSION, N_FEATURES

VIEWS = ViewSettings(recent_s=300, user_days=30, minutes=1_500, feed=10_000, ranked=10_000)
SEALS = Seals({"aaaaaaaa": b"a" * 32})
PERSONS = Persons(Pseudonyms(b"k" * 32), SEALS)
START_MS = 1_764_000_000_000
MINUTE = 60_000


def decided(
    number: int = 1, user: str = "u1", values: dict[int, float] | None = None, **changes: Any
) -> Decision:
    """An approved decision on transaction `tx-NUMBER`, one minute after the one before.

    values: of features, by their place.
    """
    vector = np.zeros(N_FEATURES, "<f4")
    for place, value in (values or {}).items():
        vector[place] = value
    fields: dict[str, Any] = {
        "user_id": user,
        "transaction_id": f"tx-{number}",
        "decision_id": decision_id(user, f"tx-{number}"),
        "event_time": START_MS + number * MINUTE,
        "amount": 10.0,
        "decision": "approve",
        "score": 0.01,
        "model_version": "heuristic-1",
        "contract_version": CONTRACT_VERSION,
        "features": vector.tobytes(),
        "decided_at": START_MS + number * MINUTE + 20,
        "country": "FR",
        "channel": "online",
    }
    return Decision(**fields | changes)


def known(user: str = "u1") -> Person:
    """A user by a pseudonym that a test can read."""
    return Person(f"user_id~{user}", f"sealed.{user}")


def label(number: int = 1, user: str = "u1", is_fraud: bool = True, **changes: Any) -> Label:
    """A verdict of an analyst on transaction `tx-NUMBER`."""
    fields: dict[str, Any] = {
        "transaction_id": f"tx-{number}",
        "user_id": user,
        "event_time": START_MS + number * MINUTE,
        "is_fraud": is_fraud,
        "source": "analyst",
        "labelled_at": START_MS + number * MINUTE + 30_000,
    }
    return Label(**fields | changes)
