"""Joins feedback with the decisions it speaks of.

Pure and without Flink: one `FeedbackJoin` works on the state of one shard of transaction ids. What it emits
for a transaction depends on the order of the feedback on it alone, not on when its decision came or where a
batch ended, so a replay after a failure emits the same again.
"""

import time
from collections.abc import Iterator, Sequence

import msgspec
from xxhash import xxh3_64_hexdigest

from events.codec import DECODING_ERRORS, Decoder
from events.example import Example
from events.feedback import Feedback, Label
from events.invalid import Invalid, refuse
from events.strict_json import explain
from events.types import Amount, EpochMs, Identifier, Probability, Verdict
from models.exploration import explored
from online_learning.precedence import Ruling, ruling
from online_learning.remembered import Basis, Remembered, Snapshot, pack, unpack
from online_learning.waiting import Received, Waiting, WaitingRoom, WaitingState
from state.contract import DAY_MS
from state.profiles import ProfileState

MAX_CHANGES = 16
"""So often may one source set the label of one transaction; what it says after that is refused."""


class JoinSettings(msgspec.Struct, frozen=True):
    """What is kept of decisions, and how long feedback waits for one."""

    floor: float = 0.05
    """Every decision with this score or more, and every one that was not approved, is kept whole."""
    sample: float = 0.01
    """Of the rest this share, chosen by a hash."""
    explore_share: float = 0.0
    """Another share of the rest, which the scoring job sends to review by chance; they are kept whole too."""
    presume: float = 0.0
    """Of what is approved this share, chosen by a hash, is an example of a legitimate transaction at once."""
    seed: int = 0
    remember_rest: bool = True
    """Keep of all others what a label needs: user, terminal, time and amount."""
    waiting_ms: int = 3 * DAY_MS
    max_waiting: int = 100_000
    """So much feedback may wait in one shard; more, and the oldest is refused before its time."""
    max_future_ms: int = 3_600_000
    """How far a label may lie ahead of the clock, or before its transaction."""
    sole: bool = False
    """There is no other shard: nothing is forwarded."""


class Decided(msgspec.Struct, gc=False):
    """The part of a decision that is read of all of them."""

    user_id: Identifier
    transaction_id: Identifier
    decision_id: Identifier
    event_time: EpochMs
    amount: Amount
    decision: Verdict
    score: Probability
    terminal_id: Identifier | None = None
    explored: bool = False


class Joined(msgspec.Struct):
    """What a batch led to.

    forwarded: feedback of another shard, naming the transaction that its anomaly stands for; it is to be
    sent again under that id, or that of the anomaly where it names no transaction. kept, remembered:
    decisions kept whole, and only as a label needs them.
    """

    labels: list[Label] = []
    examples: list[Example] = []
    forwarded: list[Feedback] = []
    refused: list[tuple[Invalid, Received]] = []
    kept: int = 0
    remembered: int = 0
    repeats: int = 0
    corrections: int = 0


class FeedbackJoin:
    """The decisions of one shard of transaction ids, and the feedback on them."""

    def __init__(
        self,
        settings: JoinSettings,
        transactions: ProfileState,
        anomalies: ProfileState,
        waiting: WaitingState,
    ) -> None:
        """State of the shard, by transaction id, by anomaly id, and who waits."""
        self._settings = settings
        self._transactions = transactions
        self._anomalies = anomalies
        self._room = WaitingRoom(waiting)
        self._feedback = Decoder(Feedback)
        self._decided = msgspec.json.Decoder(Decided).decode
        self._basis = msgspec.json.Decoder(Basis).decode
        self._open: dict[str, list[Remembered]] = {}
        self._changed: set[str] = set()
        self._joined = Joined()

    @property
    def waiting(self) -> int:
        """How many pieces of feedback wait for their transaction."""
        return len(self._room)

    @property
    def next_expiry_ms(self) -> int | None:
        """When the next of them will have waited long enough; None where none waits."""
        oldest = self._room.oldest_ms
        return None if oldest is None else oldest + self._settings.waiting_ms

    def join(
        self,
        decisions: Sequence[Received] = (),
        anomalies: Sequence[Received] = (),
        feedback: Sequence[Received] = (),
        now_ms: int | None = None,
    ) -> Joined:
        """Take in a batch. Decisions come before feedback, which would else wait for nothing.

        anomalies: decisions that were not approved, keyed by their own id.
        """
        now = round(time.time() * 1000) if now_ms is None else now_ms
        for received in decisions:
            self._remember(received)
        for received in anomalies:
            self._name(received, now)
        payloads = [received.payload for received in feedback]
        latest_ms = now + self._settings.max_future_ms
        for received, record in zip(feedback, self._feedback.decode(payloads, latest_ms), strict=True):
            if isinstance(record, Invalid):
                self._refuse(record, received)
            elif received.key == (record.transaction_id or record.anomaly_id):
                self._receive(record, received, now)
            else:
                self._forward(record, received, now)
        self._expire(now)
        return self._finish()

    def close(self) -> Joined:
        """At the end of all input: whatever still waits is refused."""
        for waiting in self._room.leave(more_than=0):
            self._refuse(_unknown(waiting, "no decision on it came"), waiting.received)
        return self._finish()

    def _finish(self) -> Joined:
        for transaction_id in self._changed:
            self._transactions.put(transaction_id, pack(self._open[transaction_id]))
        self._open.clear()
        self._changed.clear()
        joined, self._joined = self._joined, Joined()
        return joined

    def _remember(self, received: Received) -> None:
        try:
            decided = self._decided(received.payload or b"")
            sampled, presumed = self._sampled(decided), self._presumed(decided)
            basis = self._basis(received.payload or b"") if sampled or presumed else None
        except DECODING_ERRORS as error:
            self._refuse(explain(error), received)
            return
        known = self._known(decided.transaction_id)
        if any(other.user_id == decided.user_id for other in known):
            self._joined.repeats += 1
            return
        snapshot = None
        if basis is not None and presumed:
            self._joined.examples.append(_presumption(decided, basis, self._settings.presume))
        if basis is not None and sampled:
            snapshot = Snapshot.of(decided.score, basis, sampled)
            self._joined.kept += 1
        elif self._settings.remember_rest:
            self._joined.remembered += 1
        else:
            return
        known.append(
            Remembered(decided.user_id, decided.terminal_id, decided.event_time, decided.amount, snapshot)
        )
        self._changed.add(decided.transaction_id)
        for feedback, waited in self._waited("transaction", decided.transaction_id):
            self._apply(decided.transaction_id, feedback, waited)

    def _sampled(self, decided: Decided) -> float:
        """Probability with which a decision with this score is kept whole; 0 where this one is not."""
        settings = self._settings
        if decided.score >= settings.floor or (decided.decision != "approve" and not decided.explored):
            return 1.0
        # Drawn apart from what the scoring job explores, whatever the two seeds.
        drawn = explored(f"keep-{decided.decision_id}", settings.sample, settings.seed)
        if not drawn and not decided.explored:
            return 0.0
        return settings.sample + settings.explore_share * (1 - settings.sample) or 1.0

    def _presumed(self, decided: Decided) -> bool:
        """Whether the decision is among those taken for legitimate."""
        settings = self._settings
        approved = decided.decision == "approve"
        return approved and explored(f"presume-{decided.decision_id}", settings.presume, settings.seed)

    def _name(self, received: Received, now_ms: int) -> None:
        """Learn which transaction an anomaly id stands for."""
        try:
            decided = self._decided(received.payload or b"")
        except DECODING_ERRORS:
            return  # refused as a decision already
        if self._anomalies.get(decided.decision_id) is not None:
            return
        self._anomalies.put(decided.decision_id, decided.transaction_id.encode())
        for feedback, waited in self._waited("anomaly", decided.decision_id):
            self._forward(_of(feedback, decided.transaction_id), waited, now_ms)

    def _receive(self, feedback: Feedback, received: Received, now_ms: int) -> None:
        """Take feedback that is in the shard of its id."""
        transaction_id, anomaly_id = feedback.transaction_id, feedback.anomaly_id
        if transaction_id is not None:
            if self._known(transaction_id):
                self._apply(transaction_id, feedback, received)
            else:
                self._wait("transaction", transaction_id, received, now_ms)
            return
        named = self._anomalies.get(str(anomaly_id))
        if named is None:
            self._wait("anomaly", str(anomaly_id), received, now_ms)
        else:
            self._forward(_of(feedback, named.decode()), received, now_ms)

    def _forward(self, feedback: Feedback, received: Received, now_ms: int) -> None:
        """Hand feedback to the shard of its id. It is sent under the right key, so it never comes twice."""
        if self._settings.sole:
            self._receive(feedback, received, now_ms)
        else:
            self._joined.forwarded.append(feedback)

    def _apply(self, transaction_id: str, feedback: Feedback, received: Received) -> None:
        """Set the label of a transaction that is known, if this feedback is to."""
        named = self._named(transaction_id, feedback)
        if isinstance(named, Invalid):
            self._refuse(named, received)
            return
        new = ruling(feedback)
        early_ms = named.event_time - new.labelled_at
        if early_ms > self._settings.max_future_ms:
            detail = f"the label is {early_ms} ms older than the transaction"
            self._refuse(refuse("inconsistent", detail, "labelled_at"), received)
            return
        old = named.ruling
        if old is not None and new <= old:
            self._joined.repeats += 1
            return
        if old is None or not new.says_as(old):
            if named.changes[new.rank] >= MAX_CHANGES:
                detail = f"{feedback.source} has set the label of this transaction {MAX_CHANGES} times"
                self._refuse(refuse("too_many_changes", detail, "label"), received)
                return
            named.changes[new.rank] += 1
            self._emit(transaction_id, named, new)
        named.ruling = new
        self._changed.add(transaction_id)

    def _named(self, transaction_id: str, feedback: Feedback) -> Remembered | Invalid:
        """The one decision that the feedback speaks of."""
        known = self._known(transaction_id)
        if feedback.anomaly_id is None and len(known) > 1:
            detail = f"{len(known)} users have a transaction of this id; name the anomaly_id too"
            return refuse("ambiguous_transaction", detail, "transaction_id")
        for decision in known:
            if feedback.anomaly_id in (None, decision.decision_id(transaction_id)):
                return decision
        return refuse("foreign_transaction", "the anomaly is of another transaction", "anomaly_id")

    def _emit(self, transaction_id: str, decision: Remembered, new: Ruling) -> None:
        old, snapshot = decision.ruling, decision.snapshot
        corrects = old is not None and old.is_fraud != new.is_fraud
        self._joined.corrections += corrects
        self._joined.labels.append(
            Label(
                transaction_id=transaction_id,
                user_id=decision.user_id,
                event_time=decision.event_time,
                is_fraud=new.is_fraud,
                source=new.source,
                labelled_at=new.labelled_at,
                terminal_id=decision.terminal_id,
                amount=decision.amount,
            )
        )
        if snapshot is None:
            return
        said = xxh3_64_hexdigest(f"{new.source}\x1f{new.is_fraud}\x1f{new.labelled_at}".encode())
        basis = snapshot.basis
        self._joined.examples.append(
            Example(
                example_id=f"{decision.decision_id(transaction_id)}-{said}",
                transaction_id=transaction_id,
                user_id=decision.user_id,
                event_time=decision.event_time,
                labelled_at=new.labelled_at,
                is_fraud=new.is_fraud,
                source=new.source,
                analyst_id=new.analyst_id or None,
                contract_version=basis.contract_version,
                features=basis.features,
                score=snapshot.score,
                parts=basis.parts,
                model_version=basis.model_version,
                corrects=corrects,
                sampled=snapshot.sampled or 1.0,
            )
        )

    def _wait(self, kind: str, name: str, received: Received, now_ms: int) -> None:
        if not self._room.add(f"{kind} {name}", received, now_ms):
            self._joined.repeats += 1

    def _waited(self, kind: str, name: str) -> Iterator[tuple[Feedback, Received]]:
        """The feedback that waited for a transaction or anomaly, in the order of arrival."""
        received = self._room.take(f"{kind} {name}")
        if not received:
            return
        for record, origin in zip(
            self._feedback.decode([r.payload for r in received]), received, strict=True
        ):
            if isinstance(record, Invalid):  # to an older version it was good
                self._refuse(record, origin)
            else:
                yield record, origin

    def _expire(self, now_ms: int) -> None:
        settings = self._settings
        for waiting in self._room.leave(now_ms - settings.waiting_ms, settings.max_waiting):
            waited_s = (now_ms - waiting.since_ms) // 1000
            self._refuse(_unknown(waiting, f"no decision on it came in {waited_s} s"), waiting.received)

    def _known(self, transaction_id: str) -> list[Remembered]:
        known = self._open.get(transaction_id)
        if known is None:
            data = self._transactions.get(transaction_id)
            known = self._open[transaction_id] = [] if data is None else unpack(data)
        return known

    def _refuse(self, invalid: Invalid, received: Received) -> None:
        self._joined.refused.append((invalid, received))


def _presumption(decided: Decided, basis: Basis, share: float) -> Example:
    """The example of an approved transaction that is taken for legitimate."""
    return Example(
        example_id=f"{decided.decision_id}-presumed",
        transaction_id=decided.transaction_id,
        user_id=decided.user_id,
        event_time=decided.event_time,
        labelled_at=decided.event_time,
        is_fraud=False,
        source="presumed",
        contract_version=basis.contract_version,
        features=basis.features,
        score=decided.score,
        parts=basis.parts,
        model_version=basis.model_version,
        sampled=share,
    )


def _of(feedback: Feedback, transaction_id: str) -> Feedback:
    """The feedback, naming the transaction."""
    return msgspec.structs.replace(feedback, transaction_id=transaction_id)


def _unknown(waiting: Waiting, detail: str) -> Invalid:
    kind, _, _ = waiting.awaited.partition(" ")
    return refuse("unknown_transaction", detail, f"{kind}_id")
