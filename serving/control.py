"""What running jobs are told: rules, models, commands for the online learner.

What is sent was checked by the job's own code, against what the topic holds. A job checks again; what it
refuses nevertheless becomes a dead letter with the reason control_refused.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar
from uuid import uuid4

import msgspec

from events.codec import Decoder, Invalid
from events.control import ModelUpdate, OnlineCommand, Rule
from events.types import epoch_ms
from models import registry
from models.artefact import ModelRefusedError
from models.registry import RegistryError
from models.rules import RuleRefusedError, Ruleset
from models.signing import Keyring
from serving import broker
from serving.errors import ControlError, NotFoundError

RULES, MODEL_UPDATES, ONLINE_COMMANDS = "rules", "model-updates", "online-commands"
SAFE_MODE: Final = "safe_mode"
"""The slot of `model-updates`."""
MAX_BYTES = 1_000_000
"""Of a rule as JSON: what Kafka takes by default."""

Control = TypeVar("Control", ModelUpdate, OnlineCommand, Rule)


class Topics(NamedTuple):
    """Where jobs listen: configuration of a librdkafka client, and what stands before every topic name."""

    config: Mapping[str, str]
    prefix: str = ""

    def name(self, topic: str) -> str:
        return self.prefix + topic


class Held(NamedTuple):
    """What the topic holds of a rule: the rule, or why no job takes it."""

    rule: Rule | None
    refused: str | None

    @property
    def state(self) -> Literal["live", "shadow", "disabled", "expired", "refused"]:
        """What jobs make of it now."""
        if self.rule is None:
            return "refused"
        if not self.rule.enabled:
            return "disabled"
        if self.rule.expires_at is not None and epoch_ms(self.rule.expires_at) <= now_ms():
            return "expired"
        return "shadow" if self.rule.shadow else "live"


class Sent(NamedTuple):
    """What was told, and where it lies in Kafka, as TOPIC[PARTITION]@OFFSET."""

    what: str
    place: str


def checked(payload: bytes, record_type: type[Control]) -> Control:
    """The record in a payload, as the job reads it. Raises ControlError where the job would refuse it."""
    (record,) = Decoder(record_type).decode([payload])
    if isinstance(record, Invalid):
        raise ControlError(str(record))
    return record


def held_rules(topics: Topics) -> dict[str, Held]:
    """What the topic of rules holds, by key. Raises BrokerError."""
    return {key: _read(key, value) for key, value in broker.latest(topics.config, topics.name(RULES)).items()}


def ruleset_of(held: Mapping[str, Held]) -> Ruleset:
    """The rules of the topic that a job would have taken."""
    ruleset = Ruleset()
    for one in held.values():
        with suppress(RuleRefusedError):
            if one.rule is not None:
                ruleset.apply(one.rule, None)
    return ruleset


def rule_record(ruleset: Ruleset, rule: Rule, at_ms: int | None) -> bytes:
    """The record of a rule that goes with a set of others. Raises ControlError where it does not."""
    payload = msgspec.json.encode(rule)
    if len(payload) > MAX_BYTES:
        raise ControlError(f"rule {rule.rule_id}: {len(payload):,} bytes as JSON, the most are {MAX_BYTES:,}")
    try:
        ruleset.apply(rule, at_ms)
    except RuleRefusedError as error:
        raise ControlError(str(error)) from error
    return payload


def one_rule(held: Mapping[str, Held], rule_id: str) -> Held:
    """Raises NotFoundError, with what is near, where the topic does not hold the rule."""
    if rule_id in held:
        return held[rule_id]
    near = ", ".join(get_close_matches(rule_id, held))
    raise NotFoundError(f"there is no rule {rule_id}" + (f"; near are {near}" if near else ""))


def sound_rule(held: Mapping[str, Held], rule_id: str) -> Rule:
    """As `one_rule`; raises ControlError too for a rule that no job takes."""
    one = one_rule(held, rule_id)
    if one.rule is None:
        raise ControlError(f"{rule_id}: refused by the jobs: {one.refused}")
    return one.rule


def next_version(held: Mapping[str, Held], rule_id: str) -> int:
    """Version of the next rule under this id."""
    known = held[rule_id].rule if rule_id in held else None
    return known.version + 1 if known else 1


def send_rule(topics: Topics, rule: Rule, payload: bytes) -> Sent:
    """Tell the jobs a rule, given its `rule_record`. Raises BrokerError."""
    place = broker.send(topics.config, topics.name(RULES), rule.rule_id, payload)
    return Sent(f"rule {rule.rule_id}, version {rule.version}, {Held(rule, None).state}", place)


def switch_rule(topics: Topics, rule_id: str, **members: bool) -> Sent:
    """Change flags of a rule by a newer version. Raises ControlError and BrokerError."""
    held = held_rules(topics)
    rule = sound_rule(held, rule_id)
    rule = msgspec.structs.replace(rule, version=rule.version + 1, **members)
    return send_rule(topics, rule, rule_record(ruleset_of(held), rule, now_ms()))


def delete_rule(topics: Topics, rule_id: str) -> Sent:
    """Take a rule from the topic and all jobs, also one that they refused.

    Raises NotFoundError and BrokerError.
    """
    one_rule(held_rules(topics), rule_id)
    return Sent(f"rule {rule_id} deleted", broker.send(topics.config, topics.name(RULES), rule_id, None))


def in_force(topics: Topics, slot: str, timeout_s: float | None = None) -> ModelUpdate | None:
    """The update that holds for a slot; records that jobs refuse as unreadable change nothing.

    Raises BrokerError.
    """
    decoder, current = Decoder(ModelUpdate), None
    for value in broker.values(topics.config, topics.name(MODEL_UPDATES), slot, timeout_s):
        if value is None:
            current = None
            continue
        (record,) = decoder.decode([value])
        if isinstance(record, ModelUpdate) and record.slot == slot:
            current = record
    return current


def promote(topics: Topics, folder: Path, trusted: Keyring, by: str) -> Sent:
    """Have all jobs load a good artefact. Raises ControlError for any other, BrokerError."""
    version = _verified(folder, trusted)
    update = registry.promotion(folder, in_force(topics, "model"), now_ms(), by)
    return send_update(topics, update, f"model {version}")


def roll_back(topics: Topics, trusted: Keyring, by: str) -> Sent:
    """Have all jobs load what was promoted before. Raises ControlError where nothing was, BrokerError."""
    try:
        update = registry.rollback(in_force(topics, "model"), now_ms(), by)
    except RegistryError as error:
        raise ControlError(str(error)) from error
    version = _verified(Path(str(update.artefact)), trusted)
    return send_update(topics, update, f"back to model {version}")


def safe_mode(topics: Topics, timeout_s: float | None = None) -> ModelUpdate | None:
    """What switched safe mode on: why, when and by whom; None while it is off. Raises BrokerError."""
    return in_force(topics, SAFE_MODE, timeout_s)


def begin_safe_mode(topics: Topics, reason: str, by: str) -> Sent:
    """Have the heuristic decide in all running jobs, with nothing blocked but by rules.

    Raises ControlError for a reason that is no good, BrokerError.
    """
    update = ModelUpdate(slot=SAFE_MODE, reason=reason, issued_at=now_ms(), issued_by=by)
    return send_update(topics, update, "safe mode on")


def end_safe_mode(topics: Topics) -> Sent:
    """Have models decide again, where they did not. Raises BrokerError."""
    place = broker.send(topics.config, topics.name(MODEL_UPDATES), SAFE_MODE, None)
    return Sent("safe mode off", place)


def send_update(topics: Topics, update: ModelUpdate, what: str) -> Sent:
    """Raises ControlError where the jobs would refuse the update, BrokerError."""
    payload = msgspec.json.encode(update)
    checked(payload, ModelUpdate)
    return Sent(what, broker.send(topics.config, topics.name(MODEL_UPDATES), update.slot, payload))


def command_learner(
    topics: Topics,
    command: Literal["promote", "rollback", "freeze", "unfreeze"],
    by: str,
    reason: str | None,
) -> Sent:
    """Tell the online learner. Raises ControlError where it would refuse the command, BrokerError."""
    told = OnlineCommand(
        command_id=f"command-{uuid4().hex}", command=command, issued_at=now_ms(), issued_by=by, reason=reason
    )
    payload = msgspec.json.encode(told)
    checked(payload, OnlineCommand)
    return Sent(command, broker.send(topics.config, topics.name(ONLINE_COMMANDS), None, payload))


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return round(time.time() * 1000)


def _read(key: str, value: bytes) -> Held:
    try:
        rule = checked(value, Rule)
        Ruleset().apply(rule, None)
    except (ControlError, RuleRefusedError) as error:
        return Held(None, str(error))
    if rule.rule_id != key:
        return Held(None, f"it is rule {rule.rule_id} under another key")
    return Held(rule, None)


def _verified(folder: Path, trusted: Keyring) -> str:
    """Version of the model in an artefact that is good. Raises ControlError for any other."""
    try:
        manifest, _ = registry.verify(folder, trusted)
    except ModelRefusedError as error:
        raise ControlError(f"{folder}: {error}") from error
    return manifest.model_version
