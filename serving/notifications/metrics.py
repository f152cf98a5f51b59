"""What the notifier counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """Counters under the prefix `notify_`, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.alerts = self._counter("alerts", "Alerts taken in, without repeats.", "severity")
        self.repeated = self._counter("repeated", "Alerts that had been taken in before.")
        self.refused = self._counter("refused", "Records that are no alert.")
        self.stale = self._counter("stale", "Alerts too old to be sent.")
        self.unrouted = self._counter("unrouted", "Alerts that no route takes.")
        self.suppressed = self._counter("suppressed", "Alerts that were not sent.", "route", "reason")
        self.gathered = self._counter("gathered", "Alerts that wait for a digest.", "route")
        self.delivered = self._counter("delivered", "Messages that were taken.", "target")
        self.failures = self._counter("failures", "Attempts that failed.", "target")
        self.given_up = self._counter("given_up", "Messages that were given up.", "target")
        self.pending = Gauge("notify_pending", "Messages that wait.", ["target"], registry=self.registry)

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"notify_{name}", told, labels, registry=self.registry)
