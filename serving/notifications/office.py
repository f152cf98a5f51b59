"""What the parts of one notifier share."""

import threading
from collections.abc import Callable
from typing import NamedTuple

from serving.notifications.letters import DeadLetters
from serving.notifications.metrics import Metrics
from serving.notifications.outbox import Outbox


class Office(NamedTuple):
    """clock: seconds since the epoch; stopped: set when the process is to end."""

    outbox: Outbox
    letters: DeadLetters
    metrics: Metrics
    stopped: threading.Event
    clock: Callable[[], float]
