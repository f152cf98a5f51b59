"""The answer while the scoring job gives none: the heuristic on what the transaction alone shows."""

import numpy as np

from events.decision import Decision, decision_id
from events.transaction import Transaction
from events.types import epoch_ms
from models.heuristic import VERSION
from models.scorer import Scorer
from models.signing import Keyring
from serving.control import now_ms
from state.columns import field_values, transaction_array
from state.contract import CONTRACT_VERSION
from state.replay import Replayer

_SCORER = Scorer(None, Keyring({}))


def degraded_decision(transaction: Transaction) -> Decision:
    """A decision without history and rules: neither profile nor terminal is known here."""
    numbers = np.zeros(1, np.int64)
    terminal = numbers - (transaction.terminal_id is None)
    row = transaction_array([field_values(transaction)])
    features = Replayer(1, 1).features(row, numbers, terminal).features
    scores = _SCORER.score(features)
    return Decision(
        user_id=transaction.user_id,
        transaction_id=transaction.transaction_id,
        decision_id=decision_id(transaction.user_id, transaction.transaction_id),
        event_time=epoch_ms(transaction.event_time),
        amount=transaction.amount,
        decision=_SCORER.verdicts(scores.score, degraded=True)[0],
        score=float(scores.score[0]),
        model_version=VERSION,
        contract_version=CONTRACT_VERSION,
        features=features.tobytes(),
        decided_at=now_ms(),
        terminal_id=transaction.terminal_id,
        currency=transaction.currency,
        country=transaction.country,
        channel=transaction.channel,
        degraded=True,
        parts={"heuristic": float(scores.score[0])},
    )
