"""The process: reads the topic `alerts`, and ends without losing what it has read."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog
from apprise import Apprise
from confluent_kafka import Consumer, KafkaError, KafkaException

from serving.notifications.courier import Courier
from serving.notifications.intake import Intake
from serving.notifications.letters import DeadLetters
from serving.notifications.metrics import Metrics
from serving.notifications.office import Office
from serving.notifications.outbox import Outbox
from serving.notifications.routes import Routing
from serving.security.personal import Pseudonyms

MANY: Final = 500
POLL_S: Final = 0.5
END_S: Final = 15.0
"""How long an attempt under way may take when the process is to end; it is made again at the next start."""

log = structlog.get_logger()


class Notifier:
    """Everything between the topic and the targets. Raises OutboxError where the folder is in use."""

    def __init__(
        self,
        routing: Routing,
        senders: Mapping[str, Apprise],
        pseudonyms: Pseudonyms,
        folder: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """senders: as `routes.connect` makes them; folder: holds outbox and dead letters."""
        outbox, letters = Outbox(folder / "outbox.sqlite"), DeadLetters(folder / "dead-letters.jsonl")
        self.office = Office(outbox, letters, Metrics(), threading.Event(), clock)
        self.intake = Intake(routing, self.office, pseudonyms)
        self.couriers = [
            Courier(name, routing.targets[name], sender, self.office) for name, sender in senders.items()
        ]

    def stop(self) -> None:
        """Let `run` return soon. May be called from another thread or a signal handler."""
        self.office.stopped.set()

    def run(self, config: Mapping[str, str], topic: str, group: str) -> None:
        """Read until `stop`. config: of a librdkafka client.

        Offsets are committed once what was read is in the outbox. Raises KafkaException for what cannot pass.
        """
        consumer = Consumer(
            {
                **config,
                "group.id": group,
                "enable.auto.commit": "false",
                "auto.offset.reset": "earliest",
                # After a crash the next process waits so long for its partitions.
                "session.timeout.ms": "10000",
            }
        )
        for courier in self.couriers:
            courier.start()
        try:
            consumer.subscribe([topic])
            while not self.office.stopped.is_set():
                self._read(consumer)
                self.intake.flush()
        finally:
            self.office.stopped.set()
            consumer.close()
            ended = [courier.join(END_S) for courier in self.couriers]
            if all(ended):
                self.office.outbox.close()

    def _read(self, consumer: Consumer) -> None:
        values = []
        for message in consumer.consume(MANY, timeout=POLL_S):
            error = message.error()
            if error is None:
                values.append(message.value() or b"")
            elif error.fatal():
                raise KafkaException(error)
            else:
                log.warning("alerts.away", error=error.str())
        if not values:
            return
        self.intake.take(values)
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            # They are read again, and known by their ids.
            cause = error.args[0]
            log.warning("offsets.not_committed", error=cause.str() if isinstance(cause, KafkaError) else "")
