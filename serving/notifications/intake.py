"""From alerts to messages in the outbox: who is told, what is suppressed, what waits for the digest."""

from collections.abc import Sequence
from typing import Final

import msgspec

from events.alert import Alert
from events.types import epoch_ms
from serving.notifications.messages import Message, Notice, kinds_of, notice, of_many, of_one
from serving.notifications.office import Office
from serving.notifications.routes import Route, Routing
from serving.security.personal import Pseudonyms

SEEN_S: Final = 7 * 24 * 3600.0
"""So long an alert is known by its id."""
FORGET_EVERY_S: Final = 600.0


class Intake:
    """Takes alerts in. Everything it decides from is in the outbox, so a restart changes nothing."""

    def __init__(self, routing: Routing, office: Office, pseudonyms: Pseudonyms) -> None:
        self._routing = routing
        self._outbox, self._letters, self._metrics, _, self._clock = office
        self._pseudonyms = pseudonyms
        self._max_age_s = routing.max_age_hours * 3600
        self._decoder = msgspec.json.Decoder(Alert)
        self._forget_at = 0.0

    def take(self, values: Sequence[bytes]) -> None:
        """Take in the values of records; when this returns, they are on disk."""
        with self._outbox.transaction():
            for value in values:
                try:
                    alert = self._decoder.decode(value)
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    self._letters.write_record(value, str(error), self._clock())
                    self._metrics.refused.inc()
                    continue
                self._alert(alert)

    def flush(self) -> None:
        """Queue the digests that are due; called now and then."""
        now = self._clock()
        for route in self._routing.routes:
            waiting = self._outbox.gathered(route.name)
            digest = route.digest
            if digest is None and not waiting.alerts:
                continue  # what was suppressed is told with the next message
            due = waiting.since is not None and (
                digest is None or waiting.alerts >= digest.items or now - waiting.since >= digest.minutes * 60
            )
            if due:
                with self._outbox.transaction():
                    gathered = self._outbox.take_gathered(route.name)
                    self._queue(route, of_many(gathered, self._outbox.take_suppressed(route.name)), now)
        if now >= self._forget_at:
            self._outbox.forget(now)
            self._forget_at = now + FORGET_EVERY_S

    def _alert(self, alert: Alert) -> None:
        now = self._clock()
        if not self._outbox.is_new(alert.alert_id, now, SEEN_S):
            self._metrics.repeated.inc()
            return
        self._metrics.alerts.labels(alert.severity).inc()
        if now - epoch_ms(alert.raised_at) / 1000 > self._max_age_s:
            self._metrics.stale.inc()
            return
        kinds = kinds_of(alert)
        routes = [route for route in self._routing.routes if route.takes(alert.severity, kinds)]
        if not routes:
            self._metrics.unrouted.inc()
        for route in routes:
            self._send(route, alert, kinds, now)

    def _send(self, route: Route, alert: Alert, kinds: Sequence[str], now: float) -> None:
        if self._is_quiet(route, alert, kinds, now):
            self._suppress(route, "window", now)
            return
        shown = notice(alert, None if route.identities == "clear" else self._pseudonyms)
        if route.gathers(alert.severity):
            self._outbox.gather(route.name, shown, now)
            self._metrics.gathered.labels(route.name).inc()
            return
        self._queue_one(route, shown, now)

    def _is_quiet(self, route: Route, alert: Alert, kinds: Sequence[str], now: float) -> bool:
        """Whether all that it tells was told just now. A higher severity is news."""
        window_s = route.suppress_minutes * 60
        subject = (route.name, alert.user_id, alert.case_id or "", alert.severity)
        # All of them are asked: each that is not quiet is from now on.
        asked = [self._outbox.is_quiet("\0".join((*subject, kind)), now, window_s) for kind in kinds or ("",)]
        return all(asked)

    def _queue_one(self, route: Route, shown: Notice, now: float) -> None:
        self._queue(route, of_one(shown, self._outbox.take_suppressed(route.name)), now)

    def _queue(self, route: Route, message: Message, now: float) -> None:
        for target in route.targets:
            if self._outbox.pending(target) >= self._routing.targets[target].max_pending:
                self._suppress(route, "overflow", now)
            else:
                self._outbox.queue(target, route.name, message, now)

    def _suppress(self, route: Route, reason: str, now: float) -> None:
        self._outbox.suppress(route.name, now)
        self._metrics.suppressed.labels(route.name, reason).inc()
