"""Alerts and routes for the tests."""

import time
from pathlib import Path
from typing import Any

import msgspec

from events.alert import Alert
from serving.notifications.notifier import Notifier
from serving.notifications.routes import Routing, connect, read_routes
from serving.security.personal import Pseudonyms

PSEUDONYMS = Pseudonyms(bytes(32))


def alert(number: int, severity: str = "high", **fields: Any) -> Alert:
    made: dict[str, Any] = {
        "alert_id": f"alert-{number}",
        "user_id": f"user-{number}",
        "severity": severity,
        "raised_at": int(time.time() * 1000),
        "anomaly_ids": [f"d-{number}"],
        "summary": "score 0.95",
        "case_id": f"case-{number}",
        "kinds": ["score"],
        "amount": 1299.5,
        "currency": "EUR",
        "terminal_id": "terminal-7",
    }
    return Alert(**made | fields)


def encoded(*alerts: Alert) -> list[bytes]:
    return [msgspec.json.encode(one) for one in alerts]


def routing(folder: Path, text: str) -> Routing:
    file = folder / "routes.toml"
    file.write_text(text)
    return read_routes(file)


class Desk:
    """A notifier whose couriers run, without Kafka, and whose clock a test can turn."""

    def __init__(self, folder: Path, text: str, urls: dict[str, str]) -> None:
        self.ahead_s = 0.0
        routes = routing(folder, text)
        self.notifier = Notifier(
            routes, connect(routes, urls), PSEUDONYMS, folder / "state", lambda: time.time() + self.ahead_s
        )
        self.office = self.notifier.office

    def start(self) -> None:
        for courier in self.notifier.couriers:
            courier.start()

    def take(self, *alerts: Alert) -> None:
        self.notifier.intake.take(encoded(*alerts))

    def flush(self) -> None:
        self.notifier.intake.flush()

    def close(self) -> None:
        self.notifier.stop()
        assert all(courier.join(30) for courier in self.notifier.couriers)
        self.office.outbox.close()

    def counted(self, name: str, **labels: str) -> float:
        return self.office.metrics.registry.get_sample_value(f"notify_{name}_total", labels) or 0.0
