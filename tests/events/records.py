"""Hypothesis strategies for records of the contract and for the many ways to write them."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from events.audit import AuditEvent
from events.control import Condition, ModelUpdate, OnlineCommand, OnlineWeights, Rule, Thresholds
from events.example import Example
from events.feedback import Feedback, Label
from events.transaction import Transaction
from events.types import EARLIEST_MS, EPOCH, LATEST_MS, MAX_AMOUNT

identifiers = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}", fullmatch=True)
paths = identifiers.filter(lambda path: ".." not in path)
labels = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._:@/+=&,()-]{0,63}", fullmatch=True)
prose = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), max_size=200)
amounts = st.floats(0, MAX_AMOUNT)
balances = st.floats(-MAX_AMOUNT, MAX_AMOUNT)
milliseconds = st.integers(EARLIEST_MS, LATEST_MS)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
date_times = st.builds(
    lambda ms, micros, zone: (EPOCH + timedelta(milliseconds=ms, microseconds=micros)).astimezone(zone),
    st.integers(EARLIEST_MS, LATEST_MS - 1),
    st.integers(0, 999),
    offsets,
)
times: st.SearchStrategy[int | datetime] = milliseconds | date_times
ip_addresses = st.ip_addresses().map(str)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


transactions = st.builds(
    Transaction,
    transaction_id=identifiers,
    user_id=identifiers,
    event_time=times,
    amount=amounts,
    terminal_id=optional(identifiers),
    currency=optional(st.from_regex(r"[A-Z]{3}", fullmatch=True)),
    merchant_category=optional(labels),
    transaction_type=optional(st.sampled_from(["purchase", "transfer", "cash_out", "refund"])),
    channel=optional(labels),
    country=optional(st.from_regex(r"[A-Z]{2}", fullmatch=True)),
    latitude=optional(st.floats(-90, 90)),
    longitude=optional(st.floats(-180, 180)),
    device_id=optional(identifiers),
    ip=optional(ip_addresses),
    card_present=optional(st.booleans()),
    receiver_id=optional(identifiers),
    balance_before=optional(balances),
    balance_after=optional(balances),
    correlation_id=optional(identifiers),
)
sources = st.sampled_from(["analyst", "chargeback", "customer"])
label_records = st.builds(
    Label,
    transaction_id=identifiers,
    user_id=identifiers,
    event_time=times,
    is_fraud=st.booleans(),
    source=sources,
    labelled_at=times,
    terminal_id=optional(identifiers),
)
feedback_records = st.builds(
    Feedback,
    transaction_id=identifiers,
    anomaly_id=optional(identifiers),
    label=st.sampled_from(["fraud", "legitimate", "true_positive", "false_positive"]),
    source=sources,
    labelled_at=times,
    analyst_id=optional(identifiers),
    notes=optional(prose),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
probabilities = st.floats(0, 1)


@st.composite
def _online_weights(draw: st.DrawFn) -> OnlineWeights:
    numbers = st.lists(finite, min_size=(units := draw(st.integers(0, 5))), max_size=units)
    return OnlineWeights(
        version=draw(identifiers),
        features_sha256=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        features=draw(st.lists(identifiers, min_size=units, max_size=units, unique=True)),
        centre=draw(numbers),
        scale=draw(numbers),
        limit=draw(st.floats(0, 1e6, exclude_min=True)),
        weight=draw(numbers),
        offline=draw(finite),
        bias=draw(finite),
        share=draw(probabilities),
    )


model_updates = (
    st.builds(
        ModelUpdate,
        slot=st.just("thresholds"),
        thresholds=st.builds(Thresholds, review=st.floats(0, 0.5), block=st.floats(0.5, 1)),
        issued_at=times,
        issued_by=identifiers,
    )
    | st.builds(
        ModelUpdate,
        slot=st.just("model"),
        artefact=paths,
        issued_at=times,
        issued_by=identifiers,
        previous=st.lists(paths, max_size=16),
    )
    | st.builds(
        ModelUpdate, slot=st.just("online"), online=_online_weights(), issued_at=times, issued_by=identifiers
    )
    | st.builds(
        ModelUpdate,
        slot=st.just("safe_mode"),
        reason=prose.filter(bool),
        issued_at=times,
        issued_by=identifiers,
    )
)
commands = st.builds(
    OnlineCommand,
    command_id=identifiers,
    command=st.sampled_from(["promote", "rollback", "freeze", "unfreeze"]),
    issued_at=times,
    issued_by=identifiers,
    reason=optional(prose),
)
examples = st.builds(
    Example,
    example_id=identifiers,
    transaction_id=identifiers,
    user_id=identifiers,
    event_time=milliseconds,
    labelled_at=milliseconds,
    is_fraud=st.booleans(),
    source=sources,
    analyst_id=optional(identifiers),
    contract_version=st.integers(0, 10**6),
    features=st.binary(max_size=40),
    score=probabilities,
    parts=st.dictionaries(st.text(max_size=8), probabilities, max_size=3),
    model_version=st.text(max_size=20),
    corrects=st.booleans(),
    sampled=st.floats(0, 1, exclude_min=True),
)
audit_events = st.builds(
    AuditEvent,
    event_id=identifiers,
    at=milliseconds,
    step=st.sampled_from(["evaluated", "promoted", "rolled_back", "drift"]),
    actor=identifiers,
    detail=prose,
    version=optional(identifiers),
    figures=st.dictionaries(st.text(max_size=8), finite, max_size=3),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
comparisons = st.sampled_from(["<", "<=", ">", ">=", "=="])
conditions = st.builds(Condition, feature=identifiers, operator=comparisons, value=finite) | st.builds(
    Condition,
    field=st.sampled_from(["user_id", "terminal_id", "country", "ip"]),
    operator=st.sampled_from(["in", "not_in"]),
    values=st.lists(st.text(min_size=1, max_size=128), min_size=1, max_size=5),
)
of_any_rule: dict[str, st.SearchStrategy[Any]] = {
    "rule_id": identifiers,
    "version": st.integers(1, 10**9),
    "owner": identifiers,
    "verdict": st.sampled_from(["approve", "review", "block"]),
    "enabled": st.booleans(),
    "shadow": st.booleans(),
    "expires_at": optional(times),
}
rules = st.builds(
    Rule,
    **of_any_rule,
    description=optional(prose),
    all=st.lists(conditions, min_size=1, max_size=8),
) | st.builds(Rule, **of_any_rule, feature=identifiers, operator=comparisons, value=finite)
records = (
    transactions
    | label_records
    | feedback_records
    | model_updates
    | rules
    | commands
    | examples
    | audit_events
)

_odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**13), 10**13),
    st.floats(),
    st.text(max_size=20),
    identifiers,
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@st.composite
def json_payloads(draw: st.DrawFn) -> bytes:
    """A transaction as JSON whose members may be odd, repeated or missing, whose spelling may vary and
    some of whose bytes may be replaced."""
    names = [
        *Transaction.__struct_fields__[:4],
        *draw(st.lists(st.sampled_from(Transaction.__struct_fields__[4:]), unique=True)),
    ]
    valid = draw(transactions)
    members: list[tuple[str, Any]] = []
    for name in names:
        value = getattr(valid, name)
        members.append((name, value.isoformat() if isinstance(value, datetime) else value))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        name = draw(st.sampled_from([*Transaction.__struct_fields__, "extra"]) | st.text(max_size=5))
        members.insert(draw(st.integers(0, len(members))), (name, draw(_odd_values)))
    ascii_only = draw(st.booleans())
    blank = draw(st.sampled_from(["", " ", "\n\t"]))
    pairs = (
        f"{json.dumps(k, ensure_ascii=ascii_only)}{blank}:{json.dumps(v, ensure_ascii=ascii_only)}"
        for k, v in members
    )
    payload = bytearray(
        (blank + "{" + ("," + blank).join(pairs) + "}" + blank).encode(errors="surrogatepass")
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2, 3]))):
        at = draw(st.integers(0, len(payload)))
        payload[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2)
            | st.sampled_from([b'"', b"{", b"}", b"[", b",", b":", b"\\", b'":"', b'","', b" "])
        )
    return bytes(payload)
