"""The Kafka topics: which record each carries, under which key."""

import struct

import msgspec

from events.alert import Alert
from events.audit import AuditEvent
from events.control import Condition, ModelUpdate, OnlineCommand, Rule, Thresholds
from events.decision import Anomaly, DeadLetter, Decision
from events.example import Example
from events.feedback import Feedback, Label
from events.transaction import Transaction


class Topic(msgspec.Struct, frozen=True):
    """One topic. Its key is the first of the fields in `key` that is not null; with none there is no key.

    What comes from outside may be JSON or Avro; what the jobs themselves send is JSON. `ordered`: the order
    over all records matters, so the topic has one partition.
    """

    name: str
    example: msgspec.Struct
    key: tuple[str, ...] = ()
    from_outside: bool = False
    compacted: bool = False
    ordered: bool = False

    @property
    def record_type(self) -> type[msgspec.Struct]:
        return type(self.example)


_TRANSACTION = Transaction(
    transaction_id="tx-000000000042",
    user_id="user-0000123",
    event_time=1_764_000_000_000,
    amount=129.9,
    terminal_id="terminal-004711",
    currency="EUR",
    merchant_category="electronics",
    transaction_type="purchase",
    channel="online",
    country="FR",
    latitude=48.8566,
    longitude=2.3522,
    device_id="device-77",
    ip="203.0.113.9",
    card_present=False,
)
_DECISION = Decision(
    user_id="user-0000123",
    transaction_id="tx-000000000042",
    decision_id="d-5f1c9a2e7b3d4f60",
    event_time=1_764_000_000_000,
    amount=129.9,
    decision="review",
    score=0.83,
    model_version="gbm-1",
    contract_version=1,
    features=struct.pack("<3f", 129.9, 4.867, 0.0),
    decided_at=1_764_000_000_021,
    terminal_id="terminal-004711",
    currency="EUR",
    country="FR",
    channel="online",
    parts={"gbm": 0.83},
    rules=["night-electronics"],
)

TOPICS = (
    Topic("transactions", _TRANSACTION, ("user_id",), from_outside=True),
    Topic("decisions", _DECISION, ("user_id",)),
    Topic(
        "anomalies",
        Anomaly(
            user_id="user-0000123",
            anomaly_id="a-5f1c9a2e7b3d4f60",
            decision=_DECISION,
            transaction=_TRANSACTION,
        ),
        ("user_id",),
    ),
    Topic(
        "feedback",
        Feedback(
            transaction_id="tx-000000000042",
            label="fraud",
            source="analyst",
            labelled_at=1_764_003_600_000,
            analyst_id="analyst-7",
            notes="Cardholder didn't recognise the merchant.",
        ),
        ("transaction_id", "anomaly_id"),
        from_outside=True,
    ),
    Topic(
        "labels",
        Label(
            transaction_id="tx-000000000042",
            user_id="user-0000123",
            event_time=1_764_000_000_000,
            is_fraud=True,
            source="chargeback",
            labelled_at=1_765_000_000_000,
            terminal_id="terminal-004711",
        ),
        ("user_id",),
        from_outside=True,
    ),
    Topic(
        "model-updates",
        ModelUpdate(
            slot="thresholds",
            thresholds=Thresholds(review=0.6, block=0.95),
            issued_at=1_764_000_000_000,
            issued_by="analyst-7",
        ),
        ("slot",),
        from_outside=True,
        compacted=True,
        ordered=True,
    ),
    Topic(
        "rules",
        Rule(
            rule_id="night-electronics",
            version=3,
            owner="analyst-7",
            all=[
                Condition(feature="night", operator="==", value=1.0),
                Condition(feature="amount", operator=">=", value=1000.0),
                Condition(field="merchant_category", operator="in", values=["electronics"]),
            ],
            verdict="review",
            expires_at=1_800_000_000_000,
        ),
        ("rule_id",),
        from_outside=True,
        compacted=True,
        ordered=True,
    ),
    Topic(
        "examples",
        Example(
            example_id="5f1c9a2e7b3d4f60-1c9a2e7b",
            transaction_id="tx-000000000042",
            user_id="user-0000123",
            event_time=1_764_000_000_000,
            labelled_at=1_764_003_600_000,
            is_fraud=True,
            source="analyst",
            analyst_id="analyst-7",
            contract_version=1,
            features=_DECISION.features,
            score=0.83,
            parts={"gbm": 0.83},
            model_version="gbm-1",
        ),
        ("user_id",),
        ordered=True,
    ),
    Topic(
        "online-commands",
        OnlineCommand(
            command_id="command-31",
            command="rollback",
            issued_at=1_764_000_000_000,
            issued_by="analyst-7",
            reason="Alerts on grocery shops doubled within the hour.",
        ),
        from_outside=True,
        ordered=True,
    ),
    Topic(
        "audit",
        AuditEvent(
            event_id="audit-12-9f86d081884c7d65",
            at=1_764_000_000_000,
            step="promoted",
            actor="gate",
            detail="online-3 takes the place of the ensemble alone",
            version="online-3",
            figures={"gain": 0.21, "gain_at_least": 0.05, "frauds": 61.0, "legitimate": 240.0},
        ),
        ("event_id",),
        ordered=True,
    ),
    Topic(
        "alerts",
        Alert(
            alert_id="alert-19",
            user_id="user-0000123",
            severity="high",
            raised_at=1_764_000_000_100,
            anomaly_ids=["a-5f1c9a2e7b3d4f60"],
            summary="Three online purchases from a new device within 60 s",
            case_id="case-d-5f1c9a2e7b3d4f60",
            kinds=["velocity"],
            amount=129.9,
            currency="EUR",
            terminal_id="terminal-004711",
        ),
        ("user_id",),
    ),
    Topic(
        "dead-letter",
        DeadLetter(
            reason="out_of_range",
            detail="Expected `float` >= 0.0",
            topic="transactions",
            partition=0,
            offset=1234,
            payload=b'{"transaction_id":"tx-1","user_id":"u1","event_time":1764000000000,"amount":-1}',
            field="amount",
            key=b"u1",
        ),
    ),
)
