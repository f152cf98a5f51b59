"""Takes in decisions, labels and steps of the learner: judges them, and writes the stores.

Without Flink. One engine works on the keyed state of one shard of users.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from events.alert import Alert
from events.audit import AuditEvent
from events.codec import Decoder
from events.decision import Decision
from events.feedback import Label
from events.invalid import Invalid, refuse
from models.explained import Explained, explain_decisions
from models.explanation import Explainer, ExplanationError
from serving.cases import Case
from serving.documents import (
    AUDIT,
    CASES,
    DECISIONS,
    LABELS,
    PROFILES,
    Document,
    of_audit,
    of_case,
    of_decision,
    of_label,
    of_user,
)
from serving.security.personal import Person, Persons
from serving.stores import Circuit, MongoStore
from serving.users import Judged, User
from serving.views import Change, Views
from state.contract import DAY_MS
from state.profiles import ProfileState

DECISION, LABEL, STEP = range(3)
"""Kinds of records."""
KINDS: Final[tuple[type[Any], ...]] = (Decision, Label, AuditEvent)


class Received(NamedTuple):
    """A record as it came. partition: a number of its own for each partition of each topic."""

    kind: int
    partition: int
    position: int
    key: str | None
    payload: bytes | None


class Served(msgspec.Struct):
    """What a batch led to."""

    alerts: list[Alert] = []
    refused: list[tuple[Invalid, Received]] = []
    repeats: int = 0
    explained: int = 0


class Stores(NamedTuple):
    """Where it is written. circuit: in front of the views."""

    mongo: MongoStore
    views: Views
    circuit: Circuit


class Engine:
    """The users of one shard."""

    def __init__(
        self,
        shard: str,
        users: ProfileState,
        stores: Stores,
        persons: Persons,
        explainers: Mapping[str, Explainer],
    ) -> None:
        """users: by user id, as records name them; explainers: by version of the model."""
        self._shard = shard
        self._state = users
        self._stores = stores
        self._persons = persons
        self._explainers = explainers
        self._decoders = [Decoder(record_type) for record_type in KINDS]

    def take(self, received: Sequence[Received]) -> Served:
        """Take in a batch; returns when the stores have it. Taking it again changes nothing in them."""
        served = Served()
        batch = _Batch(self._state, self._persons)
        for place, record in enumerate(self._decoded(received)):
            origin = received[place]
            if isinstance(record, Invalid):
                served.refused.append((record, origin))
            elif isinstance(record, AuditEvent):
                batch.documents.append(Document(AUDIT, of_audit(record), place))
            elif not batch.judge(record, place, origin):
                served.repeats += 1
        explained = self._explained(batch)
        for place, decision, judged, person in batch.decided:
            body = of_decision(decision, judged, explained.get(decision.decision_id), person)
            batch.documents.append(Document(DECISIONS, body, place))
        for place, person, case in batch.cases.values():
            batch.documents.append(Document(CASES, of_case(case, person), place))

        for place, detail in self._stores.mongo.write(batch.documents):
            served.refused.append((refuse("store_refused", detail), received[place]))
        if batch.changes:
            self._stores.circuit.call(
                lambda: self._stores.views.write(self._shard, batch.changes, batch.told)
            )
        for user_id in {change.record.user_id for change in batch.changes}:
            self._state.put(user_id, batch.users[user_id].pack())
        served.alerts = [judged.alert for _, _, judged, _ in batch.decided if judged.alert is not None]
        served.explained = sum(not isinstance(one, str) for one in explained.values())
        return served

    def _decoded(self, received: Sequence[Received]) -> Iterable[Decision | Label | AuditEvent | Invalid]:
        """The records, in order."""
        decoded: list[Any] = [None] * len(received)
        for kind, decoder in enumerate(self._decoders):
            places = [place for place, origin in enumerate(received) if origin.kind == kind]
            records = decoder.decode([received[place].payload for place in places])
            for place, record in zip(places, records, strict=True):
                decoded[place] = _keyed(record, received[place].key)
        return decoded

    def _explained(self, batch: "_Batch") -> dict[str, Explained | str]:
        """By decision id, of those with findings: the explanation, or why there is none."""
        wanted = [decision for _, decision, judged, _ in batch.decided if judged.found]
        try:
            return {one.decision_id: one for one in explain_decisions(wanted, self._explainers)}
        except ExplanationError:
            return {decision.decision_id: self._explain(decision) for decision in wanted}

    def _explain(self, decision: Decision) -> Explained | str:
        try:
            (explained,) = explain_decisions([decision], self._explainers)
        except ExplanationError as error:
            return str(error)
        return explained


class _Batch:
    """What is known so far of a batch."""

    def __init__(self, state: ProfileState, persons: Persons) -> None:
        self.users: dict[str, User] = {}
        self.changes: list[Change] = []
        self.decided: list[tuple[int, Decision, Judged, Person]] = []
        self.cases = dict[str, tuple[int, Person, Case]]()
        self.documents: list[Document] = []
        self._state = state
        self._of = persons.of
        self._persons: dict[str, Person] = {}

    def judge(self, record: Decision | Label, place: int, origin: Received) -> bool:
        """Take in a record of a user; False for a repeat."""
        user = self._user(record.user_id)
        judged = user.decide(record) if isinstance(record, Decision) else user.label(record)
        if judged is None:
            return False
        person = self._person(record.user_id)
        self.changes.append(Change(origin.partition, origin.position, record, judged, person))
        if judged.case is not None:
            self.cases[judged.case.case_id] = place, person, judged.case
        if isinstance(record, Label):
            self.documents.append(Document(LABELS, of_label(record, judged.case, person), place))
            return True
        self.decided.append((place, record, judged, person))
        day = record.event_time // DAY_MS
        if day > user.profiled_day:
            user.profiled_day = day
            self.documents.append(Document(PROFILES, of_user(record, user, person), place))
        return True

    @property
    def told(self) -> dict[str, User]:
        """The users that changed, by pseudonym."""
        return {person.pseudonym: self.users[user_id] for user_id, person in self._persons.items()}

    def _person(self, user_id: str) -> Person:
        if user_id not in self._persons:
            self._persons[user_id] = self._of(user_id)
        return self._persons[user_id]

    def _user(self, user_id: str) -> User:
        if user_id not in self.users:
            self.users[user_id] = User.unpack(self._state.get(user_id))
        return self.users[user_id]


def _keyed(record: Any, key: str | None) -> Any:
    """A record of a user under another key would be judged apart from the others of that user."""
    if isinstance(record, Decision | Label) and key != record.user_id:
        return refuse("key_mismatch", "the record's key is not its user_id", "key")
    return record
