"""The terminal stage: the terminal's features, the model, the rules, the decision."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyflink.common import Row, Types
from pyflink.datastream import KeyedBroadcastProcessFunction, OutputTag, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from events.codec import Decoder, Invalid
from events.control import ModelUpdate, Rule
from events.decision import Anomaly, Decision, decision_id
from events.transaction import Transaction
from models.artefact import ModelRefusedError, load_model
from models.exploration import explored
from models.rules import VERDICTS, RuleRefusedError, Ruleset
from models.scorer import Scorer
from models.signing import Keyring
from operators.decision_log import DecisionLog
from operators.records import DEAD_LETTERS, RECORD, Source, dead_letter
from operators.rule_hits import RuleHits
from operators.state import expiring_map, profile_state
from operators.sub_batch import SubBatch, decode
from operators.task import task_of
from operators.user_stage import terminal_shard
from operators.watch import Level, Watch
from state.contract import CONTRACT_VERSION, N_USER, U
from state.engine import TerminalEngine
from state.layout import LABEL, TRANSACTION

ANOMALIES = OutputTag("anomalies", RECORD)
ANSWERED_TTL_DAYS = 1  # a replay is over long before
CONTROL = MapStateDescriptor("control", Types.STRING(), Types.PICKLED_BYTE_ARRAY())

TRANSACTION_ID, USER_ID, EVENT_TIME, AMOUNT, TERMINAL_ID, CURRENCY, CHANNEL, COUNTRY, CORRELATION_ID = (
    Transaction.__struct_fields__.index(name)
    for name in (
        "transaction_id", "user_id", "event_time", "amount", "terminal_id", "currency", "channel", "country",
        "correlation_id",
    )
)  # fmt: skip

encode = msgspec.json.Encoder().encode
decode_decision = msgspec.json.Decoder(Decision).decode


class TerminalStageSettings(msgspec.Struct, frozen=True):
    """What the terminal stage needs to know of the job."""

    model: str | None
    """Folder of the artefact to start with; without one the heuristic decides until an update names one."""
    keyring: Keyring
    """Whose artefacts are loaded, at the start and by updates."""
    shard_keys: tuple[int, ...]
    risk_delay_ms: int
    state_ttl_days: int
    model_updates_topic: str
    submitted_at_ms: int
    thread_mode: bool
    decisions_topic: str | None
    """Where to read back decisions after a failure; None where the job does not write to Kafka."""
    kafka_client: Mapping[str, str]
    drift_hours: float = 24.0
    alerts_per_day: float = 0.0
    """Budget of one of the parallel instances; 0 for none."""
    explore_share: float = 0.0
    """Of what would be approved, reviewed by chance."""
    explore_seed: int = 0
    max_dead_letter_bytes: int = 1 << 20


class TerminalStage(KeyedBroadcastProcessFunction):
    """Turns sub-batches into decisions.

    Input: SubBatch bytes, keyed by terminal shard; broadcast: Row(topic, key, payload, partition, offset) of
    model updates and rules. Output: Row(keys bytes[], decisions bytes[]). Side outputs: anomalies with
    their keys, dead letters (refused control records). Keys are those of the Kafka records: user ids.
    """

    def __init__(self, settings: TerminalStageSettings) -> None:
        self._settings = settings

    def open(self, runtime_context: RuntimeContext) -> None:
        settings = self._settings
        self._engine = TerminalEngine(
            profile_state(runtime_context, "terminals", settings.state_ttl_days), settings.risk_delay_ms
        )
        self._last_decided = runtime_context.get_state(ValueStateDescriptor("last-decided", Types.LONG()))
        self._answered_state = expiring_map(runtime_context, "answered", ANSWERED_TTL_DAYS)
        self._answered: dict[int, dict[str, bytes]] = {}
        self._decided_ms = 0
        self._task = task_of(runtime_context)
        self._restored_control = False
        self._updates = Decoder(ModelUpdate)
        self._rule_records = Decoder(Rule)

        metrics = runtime_context.get_metrics_group()
        self._scorer = Scorer(None, settings.keyring)
        self._rules = Ruleset()
        self._rule_hits = RuleHits(metrics)
        self._refused_total = metrics.counter("control_refused_total")
        self._applied_total = metrics.counter("control_applied_total")
        self._degraded_total = metrics.counter("degraded_total")
        self._model_failures_total = metrics.counter("model_failures_total")
        self._part_failures_total = metrics.counter("model_part_failures_total")
        self._safe_mode = Level(metrics.counter("safe_mode"))
        self._explored_total = metrics.counter("decisions_explored_total")
        self._repeated_total = metrics.counter("decisions_repeated_total")
        self._watch = Watch(metrics, settings.drift_hours, settings.alerts_per_day)
        self._verdict_totals = [metrics.counter(f"model_decisions_{v}_total") for v in VERDICTS]
        if settings.model is None:
            return
        try:
            self._scorer = Scorer(load_model(Path(settings.model), settings.keyring), settings.keyring)
        except ModelRefusedError:
            # Checked at submission; if it went bad since, degraded answers are better than none.
            self._refused_total.inc()

    def process_element(self, value: bytes, ctx: Any) -> Iterator[Any]:
        if not self._restored_control:
            self._restore_control(ctx.get_broadcast_state(CONTROL))
        shard_key = ctx.get_current_key()
        if shard_key not in self._answered:
            self._answered[shard_key] = self._resume(shard_key)
        batch = decode(value)
        if batch.labelled:
            self._engine.label(batch.labelled, np.frombuffer(batch.labels, LABEL))
        if not batch.rows:
            return
        decisions, anomalies = self._decide(batch, self._answered[shard_key])
        for anomaly in anomalies:
            yield ANOMALIES, anomaly
        array = tuple if self._settings.thread_mode else list  # what PyFlink takes for an array of the JVM
        keys = array(row[USER_ID].encode() for row in batch.rows)
        yield Row(keys, array(decisions))
        self._last_decided.update(self._decided_ms)

    def process_broadcast_element(self, value: Row, ctx: Any) -> Iterator[Any]:
        topic, key, payload, partition, offset = value
        accepted = ctx.get_broadcast_state(CONTROL)
        if not self._restored_control:
            self._restore_control(accepted)
        try:
            self._apply(topic, key, payload, int(time.time() * 1000))
        except (ModelRefusedError, RuleRefusedError) as refused:
            self._refused_total.inc()
            if self._task.subtask == 0:  # every instance sees the record, one letter is enough
                source = Source(topic, partition, offset, key, payload)
                why = Invalid("control_refused", str(refused))
                yield DEAD_LETTERS, dead_letter(why, source, self._settings.max_dead_letter_bytes)
            return
        self._applied_total.inc()
        self._safe_mode.set(self._scorer.safe_mode)
        if payload is None:
            accepted.remove(f"{topic}/{key}")
        else:
            accepted.put(f"{topic}/{key}", payload)

    def _decide(self, batch: SubBatch, answered: dict[str, bytes]) -> tuple[list[bytes], list[Row]]:
        """Decisions of a sub-batch in order, and the anomalies among them with their keys."""
        # Later than every batch before, so that it tells what a checkpoint holds from what came after.
        now_ms = self._decided_ms = max(int(time.time() * 1000), self._decided_ms + 1)
        rows = batch.rows
        features = self._features(batch)
        scorer = self._scorer
        failed_before, parts_failed_before = scorer.failures, scorer.part_failures
        scores = scorer.score(features)
        self._model_failures_total.inc(scorer.failures - failed_before)
        self._part_failures_total.inc(scorer.part_failures - parts_failed_before)
        levels, alert_scores = self._scorer.levels(scores.score, scores.degraded), scores.score
        hits = self._rules.evaluate(features, rows, now_ms)
        if hits is not None:
            levels, alert_scores = hits.decide(levels), hits.alert_scores(alert_scores)
            self._rule_hits.count(hits)
        verdicts = [VERDICTS[level] for level in levels.tolist()]
        names = hits.names() if hits is not None else None
        review_threshold = None if scores.degraded else self._scorer.review_threshold
        latest_ms = int(np.frombuffer(batch.transactions, TRANSACTION)["time"].max())
        self._watch.observe(self._scorer, features, scores, alert_scores, latest_ms)
        columns = [part.tolist() for part in scores.parts.values()]
        parts = [dict(zip(scores.parts, column, strict=True)) for column in zip(*columns, strict=True)]
        late = set(batch.late)
        share, seed = self._settings.explore_share, self._settings.explore_seed
        if scores.degraded:
            self._degraded_total.inc(len(rows))

        decisions: list[bytes] = []
        anomalies: list[Row] = []
        for i, (row, score, verdict) in enumerate(zip(rows, scores.score.tolist(), verdicts, strict=True)):
            identity = decision_id(row[USER_ID], row[TRANSACTION_ID])
            raw = answered.pop(identity, None) if answered else None
            if raw is not None:
                self._answered_state.remove(identity)
                self._repeated_total.inc()
                decision = decode_decision(raw)
            else:
                free = verdict == "approve" and not (hits is not None and hits.allowed[i])
                by_chance = share > 0 and free and explored(identity, share, seed)
                if by_chance:
                    self._explored_total.inc()
                decision = Decision(
                    user_id=row[USER_ID],
                    transaction_id=row[TRANSACTION_ID],
                    decision_id=identity,
                    event_time=row[EVENT_TIME],
                    amount=row[AMOUNT],
                    decision="review" if by_chance else verdict,
                    score=score,
                    model_version=scores.model_version,
                    contract_version=CONTRACT_VERSION,
                    features=features[i].tobytes(),
                    decided_at=now_ms,
                    terminal_id=row[TERMINAL_ID],
                    currency=row[CURRENCY],
                    country=row[COUNTRY],
                    channel=row[CHANNEL],
                    degraded=scores.degraded,
                    late=i in late,
                    parts=parts[i] if parts else {},
                    rules=names[i] if names is not None else [],
                    review_threshold=review_threshold,
                    explored=by_chance,
                    correlation_id=row[CORRELATION_ID],
                )
                raw = encode(decision)
            decisions.append(raw)
            if decision.decision != "approve":
                anomaly = Anomaly(row[USER_ID], identity, decision, Transaction(*row))
                anomalies.append(Row(row[USER_ID].encode(), encode(anomaly)))
        for verdict, total in zip(VERDICTS, self._verdict_totals, strict=True):
            total.inc(verdicts.count(verdict))
        return decisions, anomalies

    def _features(self, batch: SubBatch) -> NDArray[np.float32]:
        """All features f4 [n, N_FEATURES] of a sub-batch."""
        n = len(batch.rows)
        transactions = np.frombuffer(batch.transactions, TRANSACTION)
        user = np.frombuffer(batch.features, np.float32).reshape(n, N_USER)
        terminal = self._engine.features(
            [row[TERMINAL_ID] for row in batch.rows], transactions, user[:, U.USER_FRAUDS].copy()
        )
        return np.concatenate((user, terminal), axis=1)

    def _apply(self, topic: str, key: str | None, payload: bytes | None, now_ms: int | None) -> None:
        """Raises ModelRefusedError or RuleRefusedError and changes nothing where the record is no good.

        now_ms: when it came; None for what was accepted before a restart.
        """
        if topic == self._settings.model_updates_topic:
            if payload is None:
                self._scorer.clear(key)
                return
            (update,) = self._updates.decode([payload])
            if isinstance(update, Invalid):
                raise ModelRefusedError(f"{update.reason}: {update.detail}")
            if update.slot != key:
                raise ModelRefusedError(f"key_mismatch: slot {update.slot} under another key")
            self._scorer.apply(update)
            return
        if payload is None:
            self._rules.remove(key)
            return
        (rule,) = self._rule_records.decode([payload])
        if isinstance(rule, Invalid):
            field = f"{rule.field}: " if rule.field else ""
            raise RuleRefusedError(f"{rule.reason}: {field}{rule.detail}")
        if rule.rule_id != key:
            raise RuleRefusedError(f"key_mismatch: rule {rule.rule_id} under another key")
        self._rules.apply(rule, now_ms)
        self._rule_hits.add(rule)

    def _restore_control(self, accepted: Any) -> None:
        """After a restart the topics are not read again: what was accepted stands in broadcast state."""
        self._restored_control = True
        for name, payload in list(accepted.items()):
            topic, _, key = name.partition("/")
            try:
                self._apply(topic, key, payload, None)
            except (ModelRefusedError, RuleRefusedError):
                self._refused_total.inc()
        self._safe_mode.set(self._scorer.safe_mode)

    def _resume(self, shard_key: int) -> dict[str, bytes]:
        """What was answered after the checkpoint that this run of a shard starts from, by decision id.

        Called with the shard's first batch. The answers are kept in state until they are given again: a
        checkpoint may fall into the replay, and the next failure then starts from it.
        """
        answered = dict(self._answered_state.items())
        since = self._last_decided.value()
        if since is None and self._task.attempt > 0:
            since = self._settings.submitted_at_ms
        if since is None or self._settings.decisions_topic is None:
            return answered
        self._decided_ms = max(self._decided_ms, since)
        shards = self._settings.shard_keys
        log = DecisionLog(self._settings.kafka_client, self._settings.decisions_topic)
        found = {
            a.decision_id: raw
            for a, raw in log.since(since)
            if shards[terminal_shard(a.terminal_id, a.user_id, len(shards))] == shard_key
        }
        self._answered_state.put_all(found)
        return answered | found
