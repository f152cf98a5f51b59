"""What may go wrong between here and the jobs. Light to import: the command line tells of all of it."""


class BrokerError(Exception):
    """No Kafka broker answers, or not as it should; the message says which and why."""


class ControlError(Exception):
    """A job would refuse what it is to be told, or there is no such thing; the message says what and why."""


class NotFoundError(ControlError):
    """There is no such rule or model."""


class StoreAway(Exception):  # noqa: N818 - a state of the store, as in HTTP
    """A store does not answer, or not in time. store: MongoDB or Redis."""

    def __init__(self, store: str, why: str) -> None:
        super().__init__(f"{store} {why}")
        self.store = store


class QueryError(ValueError):
    """What is asked of the stores is no good. field, reason: which value, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason
