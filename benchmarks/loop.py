"""The learning loop on the real stack: how soon labels change live scores."""

import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Producer
from numpy.typing import NDArray
from xxhash import xxh3_64_hexdigest

from events.audit import AuditEvent
from events.control import ModelUpdate
from events.decision import Decision
from events.example import Example
from events.feedback import Feedback
from events.transaction import Transaction
from events.types import epoch_ms
from simulator.columns import encode_transactions
from simulator.config import SimulationConfig
from simulator.simulation import simulate
from stack.cluster import LEARNING, Cluster
from state.contract import FEATURE_NAMES

FRAUDS: Final = 200
LEGITIMATE: Final = 600
LABELS_PER_S: Final = 100
PROBES_PER_S: Final = 20
PATIENCE_S: Final = 60.0
SETTLED_S: Final = 5.0
"""So long after the last new weights probes go on."""
LOOK_S: Final = 1.0
ANALYSTS: Final = 4
TERMINALS: Final = 3
"""That the pattern uses, unknown before."""
TICK_S: Final = 0.005
USER_FRAUDS: Final = FEATURE_NAMES.index("user_frauds")


class Stamped(NamedTuple):
    """A record of a topic. at_ms: by the topic's timestamps, milliseconds since the epoch."""

    at_ms: int
    key: bytes | None
    value: bytes | None


class Promotion(NamedTuple):
    """New weights, from the label that gate and learner were waiting for to the first score by them.

    labels, frauds: evidence of the gate; label_ms, update_ms, decision_ms: times of these records in Kafka,
    milliseconds since the epoch; decision_ms is None where nothing was decided by this version.
    """

    version: str
    transaction_id: str
    labels: int
    frauds: int
    label_ms: int
    update_ms: int
    decision_ms: int | None


class Trace(NamedTuple):
    """What became of a pattern that the model had never seen.

    probes: f8 [n], scores of its transactions in the order they were decided, which nobody labels; ordinary:
    f8 [n], those of other transactions after the last promotion; by_ensemble: how many of the probes the
    ensemble decided alone; known_frauds: the most that the profile of a user knew of when deciding.
    """

    promotions: list[Promotion]
    probes: NDArray[np.float64]
    by_ensemble: int
    ordinary: NDArray[np.float64]
    known_frauds: int


class Shop:
    """Simulated traffic of people who go on living as before, and frauds in their names.

    The pattern: a small amount at one of a few terminals that nobody has used before.
    """

    def __init__(self, seed: int = 11) -> None:
        config = SimulationConfig(users=400, terminals=120, days=12, fraud_rate=0, seed=seed)
        decode = msgspec.json.Decoder(Transaction).decode
        self.past = [decode(value) for value in encode_transactions(simulate(config).transactions)]
        self._rng = np.random.default_rng(seed)
        self._now_ms = max(epoch_ms(t.event_time) for t in self.past)
        self._sent = 0

    def ordinary(self) -> Transaction:
        """Somebody pays as before."""
        return self._next("pay")

    def fraud(self) -> Transaction:
        """Somebody else does, in his name."""
        amount = round(float(self._rng.uniform(0.5, 1.5)), 2)
        terminal = f"unseen-{self._rng.integers(TERMINALS)}"
        return msgspec.structs.replace(self._next("fraud"), amount=amount, terminal_id=terminal)

    def _next(self, name: str) -> Transaction:
        self._sent += 1
        self._now_ms += 1_000
        like = self.past[self._rng.integers(len(self.past) // 2, len(self.past))]
        return msgspec.structs.replace(like, transaction_id=f"{name}-{self._sent}", event_time=self._now_ms)


def trace(cluster: Cluster, prefix: str, *options: str) -> Trace:
    """Label `FRAUDS` frauds of an unseen pattern while more of them come, with both jobs running.

    options: of both jobs. Raises StackError where decisions do not come in time.
    """
    shop = Shop()
    topic = f"{prefix}transactions"
    jobs = [
        cluster.submit(prefix, *options),
        cluster.submit(prefix, *options, "--keep-sample", "1", script=LEARNING),
    ]
    shown = [shop.fraud() for _ in range(FRAUDS)] + [shop.ordinary() for _ in range(LEGITIMATE)]
    cluster.produce(topic, map(_record, [*shop.past, *shown]))
    cluster.decisions(prefix, len(shop.past) + len(shown))
    _label(cluster, prefix, shop, shown)
    seen = _Seen(cluster, prefix)
    for job in jobs:
        cluster.cancel(job)
    return seen.trace()


def _record(transaction: Transaction) -> tuple[bytes, bytes]:
    return transaction.user_id.encode(), msgspec.json.encode(transaction)


def _label(cluster: Cluster, prefix: str, shop: Shop, shown: list[Transaction]) -> None:
    """Analysts answer at a steady pace, while probes and other transactions come at another."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 1})
    updates = f"{prefix}model-updates"
    order = np.random.default_rng(3).permutation(len(shown))
    start = time.monotonic()
    labelled = probed = known = 0
    changed = looked = start
    while True:
        now = time.monotonic()
        while labelled < min((now - start) * LABELS_PER_S, len(shown)):
            transaction = shown[order[labelled]]
            producer.produce(
                f"{prefix}feedback", msgspec.json.encode(_verdict(transaction)), transaction.transaction_id
            )
            labelled += 1
        while probed < (now - start) * PROBES_PER_S:
            for transaction in (shop.fraud(), shop.ordinary()):
                key, value = _record(transaction)
                producer.produce(f"{prefix}transactions", value, key)
            probed += 1
        if now - looked > LOOK_S:
            looked, count = now, cluster.count(updates)
            changed = now if count != known else changed
            known = count
        producer.poll(0)
        done = labelled == len(shown) and known > 1  # the first is that a new trainer begins
        if (done and now - changed > SETTLED_S) or now - start > PATIENCE_S:
            break
        time.sleep(TICK_S)
    producer.flush(PATIENCE_S)
    cluster.until(
        lambda: cluster.count(f"{prefix}decisions") >= len(shop.past) + len(shown) + 2 * probed, 30, "all"
    )


def _verdict(transaction: Transaction) -> Feedback:
    is_fraud = transaction.transaction_id.startswith("fraud")
    return Feedback(
        transaction_id=transaction.transaction_id,
        label="fraud" if is_fraud else "legitimate",
        source="analyst",
        analyst_id=f"analyst-{len(transaction.transaction_id) % ANALYSTS}",
        labelled_at=round(time.time() * 1000),
    )


class _Seen:
    """What the topics hold in the end."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._cluster, self._prefix = cluster, prefix

    def trace(self) -> Trace:
        decided = [
            (d.at_ms, msgspec.json.decode(d.value or b"", type=Decision)) for d in self._all("decisions")
        ]
        decided.sort(key=lambda of: of[0])
        asked = {f.key for f in self._all("feedback")}
        probes = [
            d
            for _, d in decided
            if d.transaction_id.startswith("fraud") and d.transaction_id.encode() not in asked
        ]
        promotions = self._promotions(decided)
        last = promotions[-1].version if promotions else None
        others = [d.score for _, d in decided if d.transaction_id.startswith("pay") and _online(d) == last]
        return Trace(
            promotions,
            np.array([d.score for d in probes]),
            sum(_online(d) is None for d in probes),
            np.array(others),
            int(max(np.frombuffer(d.features, "<f4")[USER_FRAUDS] for _, d in decided)),
        )

    def _promotions(self, decided: list[tuple[int, Decision]]) -> list[Promotion]:
        labels = {(f.key or b"").decode(): f.at_ms for f in self._all("feedback")}
        examples = {
            xxh3_64_hexdigest(e.example_id.encode()): e
            for e in (msgspec.json.decode(x.value or b"", type=Example) for x in self._all("examples"))
        }
        updates = {
            update.online.version: u.at_ms
            for u in self._all("model-updates")
            if u.value and (update := msgspec.json.decode(u.value, type=ModelUpdate)).online is not None
        }
        first = {version: at for at, d in reversed(decided) if (version := _online(d)) is not None}
        found = []
        for record in self._all("audit"):
            step = msgspec.json.decode(record.value or b"", type=AuditEvent)
            if step.step != "promoted" or step.version is None:
                continue
            example = examples[step.event_id.rpartition("-")[2]]
            found.append(
                Promotion(
                    step.version,
                    example.transaction_id,
                    int(step.figures["labels"]),
                    int(step.figures["frauds"]),
                    labels.get(example.transaction_id, example.labelled_at),
                    updates[step.version],
                    first.get(step.version),
                )
            )
        return found

    def _all(self, topic: str) -> list[Stamped]:
        """All records of a topic."""
        name = f"{self._prefix}{topic}"
        messages = self._cluster.messages(name, self._cluster.count(name), PATIENCE_S)
        return [Stamped(m.timestamp()[1], m.key(), m.value()) for m in messages]


def _online(decision: Decision) -> str | None:
    """The version of the online part that a decision carries."""
    return decision.model_version.partition("+")[2] or None


def lines(of: Trace) -> Iterator[str]:
    """The trace as a table."""
    yield "| version | evidence | the last label to the update | the update to a decision by it | in all |"
    yield "|---|---|---|---|---|"
    for p in of.promotions:
        told = p.update_ms - p.label_ms
        used = "none came before the next" if p.decision_ms is None else f"{p.decision_ms - p.update_ms} ms"
        whole = "" if p.decision_ms is None else f"{p.decision_ms - p.label_ms} ms"
        yield f"| {p.version} | {p.labels} labels, {p.frauds} frauds | {told} ms | {used} | {whole} |"
    before, after = of.probes[: of.by_ensemble], of.probes[-50:]
    yield ""
    yield (
        f"Median score of the pattern: {np.median(before):.4f} by the ensemble alone ({len(before)} "
        f"transactions), {np.median(after):.4f} in the end. Of ordinary transactions by then: "
        f"{np.median(of.ordinary):.4f}, 99 in 100 below {np.quantile(of.ordinary, 0.99):.4f}."
    )
