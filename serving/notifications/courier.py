"""Sends what waits for one target, one message after the other, until it is taken or given up."""

import threading
import time
from typing import Final

import structlog
from apprise import Apprise, NotifyFormat
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_random_exponential

from serving.notifications.office import Office
from serving.notifications.outbox import Queued
from serving.notifications.routes import Target

IDLE_S: Final = 0.2
CALL_S: Final = 60.0
"""How long one attempt may take, however slowly the receiver answers."""

log = structlog.get_logger()


class NotTakenError(Exception):
    """The target did not take a message; the text says why and holds no secret."""


class Courier:
    """A thread for one target: what holds it up holds up no other.

    Between attempts it waits for a random time up to an exponentially growing limit, so that several that
    wait for the same receiver do not come at once.
    """

    def __init__(self, name: str, target: Target, sender: Apprise, office: Office) -> None:
        self._name = name
        self._target = target
        self._sender = sender
        self._outbox, self._letters, self._metrics, self._stopped, self._clock = office
        self._thread = threading.Thread(target=self._run, name=f"courier {name}", daemon=True)
        self._next_at = 0.0
        self._metrics.pending.labels(name).set_function(lambda: self._outbox.pending(name))

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the attempt under way; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            queued = self._outbox.next(self._name)
            if queued is None:
                self._stopped.wait(IDLE_S)
                continue
            self._deliver(queued)

    def _deliver(self, queued: Queued) -> None:
        give_up_at = queued.at + self._target.give_up_minutes * 60

        def over(_state: RetryCallState) -> bool:
            return self._stopped.is_set() or self._clock() >= give_up_at

        retrying = Retrying(
            retry=retry_if_exception_type(NotTakenError),
            wait=wait_random_exponential(multiplier=0.5, min=0.05, max=self._target.longest_wait_s),
            stop=over,
            sleep=sleep_using_event(self._stopped),
            reraise=True,
        )
        try:
            retrying(self._attempt, queued)
        except NotTakenError as error:
            if self._clock() >= give_up_at:
                self._give_up(queued, str(error))
            # Else the process is to end, and the message stays in the outbox.
            return
        self._outbox.done(queued.number)
        self._metrics.delivered.labels(self._name).inc()

    def _give_up(self, queued: Queued, reason: str) -> None:
        self._letters.write_message(queued, reason, self._clock())
        self._outbox.done(queued.number)
        self._metrics.given_up.labels(self._name).inc()
        log.error("notification.given_up", target=self._name, route=queued.route, reason=reason)

    def _attempt(self, queued: Queued) -> None:
        self._keep_pace()
        if self._stopped.is_set():
            raise NotTakenError("stopped")
        message = queued.message
        result = self._sender.notify(
            message.body,
            message.title,
            notify_type=message.level,
            body_format=NotifyFormat.TEXT,
            timeout=CALL_S,
        )
        if result:
            return
        self._metrics.failures.labels(self._name).inc()
        reason = "; ".join(entry.message for entry in result.logs()) or result.status.name
        log.warning("notification.not_taken", target=self._name, reason=reason)
        raise NotTakenError(reason)

    def _keep_pace(self) -> None:
        """Wait for this target's turn: its messages are spread evenly over the minute."""
        now = time.monotonic()
        if self._next_at > now:
            self._stopped.wait(self._next_at - now)
        self._next_at = time.monotonic() + 60 / self._target.per_minute
