"""A console with everything behind it: Kafka, Redis, FerretDB, a gateway process, and filled stores.

What is stored comes from simulated transactions, features and scores of the repository's own model, real
explanations, and the serving engine; no Flink is needed for that.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import pandas as pd

from events.audit import AuditEvent
from events.decision import Decision, decision_id
from events.feedback import Feedback, Label
from models.artefact import load_model
from models.explanation import load_explainer
from models.history import history
from models.scorer import Scorer
from models.signing import TRUSTED_KEYS, Keyring, generate_keys
from serving.console.guard import COOKIE
from serving.documents import INDEXES
from serving.engine import DECISION, LABEL, STEP, Engine, Received, Stores
from serving.gateway.folders import users_folder
from serving.security.accounts import Accounts
from serving.security.personal import Persons, new_secrets, read_secrets
from serving.security.sessions import Sessions, new_session_secret, read_session_secret
from serving.stores import MongoStore, connect_mongo, connect_redis, redis_circuit
from serving.views import Views
from simulator.config import SimulationConfig
from simulator.simulation import simulate
from stack.cluster import Cluster
from stack.ports import free_ports
from state.contract import CONTRACT_VERSION, DAY_MS, HOUR_MS, MINUTE_MS
from state.replay import replay
from tests.serving.samples import VIEWS
from tests.serving.servers import Server

PASSWORD: Final = "correct horse battery"
PEOPLE: Final = {"ana": "analyst", "dana": "data_scientist", "adam": "admin"}
ARTEFACT: Final = Path(__file__).parents[3] / "models" / "artefacts" / "first"
PREFIX: Final = "console."
HOSTILE: Final = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class KeyedState(dict[str, bytes]):
    """Keyed state in a dict."""

    put = dict.__setitem__


class Stored:
    """The stores as the serving job leaves them: one engine, and positions that go on."""

    def __init__(self, mongo_url: str, redis_url: str, keys: Path, database: str = "fraudstream") -> None:
        pseudonyms, seals = read_secrets(keys)
        self.mongo: Any = connect_mongo(mongo_url)
        self.redis: Any = connect_redis(redis_url)
        self.database = database
        explainer = load_explainer(ARTEFACT, Keyring.read(TRUSTED_KEYS, False))
        self._engine = Engine(
            "0",
            KeyedState(),
            Stores(
                MongoStore(self.mongo, database), Views(self.redis, VIEWS, "log"), redis_circuit(self.redis)
            ),
            Persons(pseudonyms, seals),
            {explainer.version: explainer},
        )
        self._position = 0

    def empty(self) -> None:
        for name in INDEXES:
            self.mongo[self.database][name].drop()
        self.redis.flushall()

    def take(self, records: Iterable[Decision | Label | AuditEvent]) -> None:
        """Take in records in their order."""
        received = []
        for record in records:
            kind = DECISION if isinstance(record, Decision) else LABEL if isinstance(record, Label) else STEP
            key = record.event_id if isinstance(record, AuditEvent) else record.user_id
            self._position += 1
            received.append(Received(kind, kind, self._position, key, msgspec.json.encode(record)))
        served = self._engine.take(received)
        assert not served.refused, served.refused[:3]


def traffic(users: int = 300, days: int = 10, served_days: float = 1.0, seed: int = 5) -> list[Decision]:
    """Decisions on simulated transactions that end now; earlier days made the profiles they are judged by."""
    today = datetime.now(UTC).date()
    config = SimulationConfig(
        users=users, terminals=200, days=days, fraud_rate=0.12, seed=seed, transactions_per_user_day=3.0,
        start=pd.Timestamp(today - pd.Timedelta(days=days - 1)).date(),
    )  # fmt: skip
    frame = simulate(config).transactions
    now_ms = round(time.time() * 1000)
    # Ends now, whatever the hour: no event may lie ahead, and the last hour shall have some.
    frame["event_time"] += now_ms - 3_000 - int(frame["event_time"].max())
    past = history(frame, 7.0, now_ms)
    features = replay(past.transactions, past.user, past.terminal, past.known_labels()).features
    scorer = Scorer(load_model(ARTEFACT, Keyring.read(TRUSTED_KEYS, False)), Keyring({}))
    scores = scorer.score(features)
    verdicts = scorer.verdicts(scores.score)
    wanted = np.flatnonzero(frame["event_time"].to_numpy() >= now_ms - round(served_days * DAY_MS))
    decisions = []
    for i in wanted:
        row: dict[Any, Any] = {
            name: None if pd.isna(value) else value for name, value in frame.iloc[i].items()
        }
        decisions.append(
            Decision(
                user_id=row["user_id"],
                transaction_id=row["transaction_id"],
                decision_id=decision_id(row["user_id"], row["transaction_id"]),
                event_time=int(row["event_time"]),
                amount=float(row["amount"]),
                decision=verdicts[i],
                score=float(scores.score[i]),
                model_version=scores.model_version,
                contract_version=CONTRACT_VERSION,
                features=features[i].tobytes(),
                decided_at=int(row["event_time"]) + 20,
                terminal_id=row["terminal_id"],
                currency=row["currency"],
                country=row["country"],
                channel=row["channel"],
                parts={name: float(part[i]) for name, part in scores.parts.items()},
            )
        )
    return decisions


def labels_of(decisions: list[Decision], share: float = 0.4) -> list[Label]:
    """Labels on some of what was flagged, as analysts, banks and customers give them."""
    draw = np.random.default_rng(1)
    found = []
    for d in decisions:
        if d.decision == "approve" or draw.random() > share:
            continue
        source = ("analyst", "analyst", "chargeback", "customer")[draw.integers(4)]
        at = d.event_time + int(draw.integers(1, 30)) * MINUTE_MS
        found.append(
            Label(
                transaction_id=d.transaction_id, user_id=d.user_id, event_time=d.event_time,
                is_fraud=bool(draw.random() < 0.3 + 0.6 * d.score), source=source, labelled_at=at,  # type: ignore[arg-type]
                terminal_id=d.terminal_id, amount=d.amount,
            )
        )  # fmt: skip
    return found


def learner_steps(hours: int = 12) -> list[AuditEvent]:
    """Steps of a learner and its gate, as they come over some hours."""
    now_ms, draw, version, found = round(time.time() * 1000), np.random.default_rng(2), None, []
    for number in range(hours * 2):
        at = now_ms - (hours * 2 - number) * HOUR_MS // 2
        loss = 0.21 - 0.003 * number
        figures = {
            "labels": 40.0 * number,
            "log_loss_offline": 0.22 + 0.004 * draw.random(),
            "log_loss_live": (loss + 0.02 if version else 0.22) + 0.004 * draw.random(),
            "log_loss_challenger": loss + 0.006 * draw.random(),
        }
        step, actor, detail = "evaluated", "gate", "the challenger is not surely better yet"
        if number == 6:
            step, version, detail = "promoted", "online-1", "online-1 for the ensemble alone: fewer alarms"
        if number == 14:
            step, actor, detail = "drift", "learner", "the error of the live part rises"
        if number == 17:
            step, version, detail = "promoted", "online-2", "online-2 for online-1: foretells better"
        found.append(
            AuditEvent(
                event_id=f"audit-{number}", at=at, step=step, actor=actor, detail=detail,  # type: ignore[arg-type]
                version=version, figures=figures,
            )
        )  # fmt: skip
    return found


def write_keys(folder: Path) -> Path:
    """A folder of keys with one person of each role."""
    generate_keys(folder / "tokens")
    new_secrets(folder)
    new_session_secret(folder)
    accounts = Accounts(users_folder(folder))
    for name, role in PEOPLE.items():
        accounts.add(name, role, PASSWORD)  # type: ignore[arg-type]
    return folder


class GatewayProcess:
    """The gateway as it is started by hand, with the console."""

    def __init__(self, home: Path, bootstrap: str, mongo: str, redis: str, **settings: str) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.audit_file = home / "audit.jsonl"
        self._log = home / "gateway.log"
        self._environment = {
            **os.environ,
            "FRAUDSTREAM_BOOTSTRAP": bootstrap,
            "FRAUDSTREAM_TOPIC_PREFIX": PREFIX,
            "FRAUDSTREAM_MONGO_URL": mongo,
            "FRAUDSTREAM_REDIS_URL": redis,
            "FRAUDSTREAM_GATEWAY_KEYS": str(home / "keys"),
            "FRAUDSTREAM_GATEWAY_AUDIT": str(self.audit_file),
            # No test shall depend on the speed of the machine.
            "FRAUDSTREAM_GATEWAY_QUERY_S": "10",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "gateway", "--port", str(self.port)],
                env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip
        ends = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                if time.monotonic() > ends or self.process.poll() is not None:
                    raise RuntimeError(self.log()[-3000:]) from None
                time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def log(self) -> str:
        return self._log.read_text()

    def audit(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.audit_file.read_bytes().splitlines()]


class ConsoleWorld:
    """All of it together."""

    def __init__(self, home: Path, cluster: Cluster, mongo: Server, redis: Server, **settings: str) -> None:
        self.keys = write_keys(home / "keys")
        self.cluster, self.mongo, self.redis = cluster, mongo, redis
        self.stored = Stored(mongo.url, redis.url, self.keys)
        self.gateway = GatewayProcess(home, cluster.bootstrap, mongo.url, redis.url, **settings)

    def cookie(self, name: str) -> dict[str, str]:
        """The cookie of a new session, as the gateway gives it after signing in."""
        accounts = Accounts(users_folder(self.keys))
        account = accounts.get(name)
        assert account is not None
        _, cookie = Sessions(read_session_secret(self.keys), accounts, 3600).begin(account)
        return {COOKIE: cookie}

    def feedback(self, about: str, enough: int = 1, within_s: float = 60) -> list[Feedback]:
        """The feedback on a transaction that the topic holds, once there is so much."""
        ends = time.monotonic() + within_s
        while True:
            topic = f"{PREFIX}feedback"
            everything = self.cluster.read(topic, Feedback, 1, 30) if self.cluster.count(topic) else []
            found = [given for given in everything if given.transaction_id == about]
            if len(found) >= enough:
                return found
            if time.monotonic() > ends:
                raise TimeoutError(f"{len(found)} of {enough} records on {about}")
            time.sleep(0.2)


@contextmanager
def console_world(home: Path, cluster: Cluster, **settings: str) -> Iterator[ConsoleWorld]:
    """Servers of its own, which a test may stop; a gateway; stores that are empty."""
    with ExitStack() as servers:
        # One after the other: a port is free until its server listens.
        started = []
        for service in ("mongo", "redis"):
            server = Server(home / service, service)
            server.start()
            servers.callback(server.kill)
            started.append(server)
        mongo, redis = started
        cluster.topics(PREFIX, partitions=1)
        world = ConsoleWorld(home, cluster, mongo, redis, **settings)
        world.gateway.start()
        try:
            yield world
        finally:
            world.gateway.stop()
