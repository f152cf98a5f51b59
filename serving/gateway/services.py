"""What the routes need, opened once for all of them."""

import asyncio
from typing import Final

import structlog
from fastapi import Request
from redis.asyncio import Redis

from events.codec import Decoder
from events.feedback import Feedback
from events.transaction import Transaction
from models.signing import Keyring
from serving.control import Topics
from serving.gateway.decisions import DecisionFeed
from serving.gateway.folders import clients_folder, tokens_folder
from serving.gateway.live_feed import LiveFeed
from serving.gateway.publisher import Publisher
from serving.gateway.settings import GatewaySettings
from serving.queries import Queries, open_mongo, open_redis
from serving.security.audit import Act, AuditTrail, Outcome
from serving.security.clients import Limit, read_clients
from serving.security.personal import Persons, read_secrets
from serving.security.shared import SharedState
from serving.security.tokens import TokenVerifier

DEFAULT_LIMIT: Final = Limit()
LOOK_EVERY_S: Final = 2.0

log = structlog.get_logger()


class Services:
    """Everything behind the routes. `start` within the event loop, `close` at the end."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises KeyFileError and AuditError for keys or a trail that are no good, before anything starts."""
        self.settings = settings
        self.tokens = TokenVerifier(tokens_folder(settings.gateway_keys))
        self.clients = read_clients(clients_folder(settings.gateway_keys))
        self.pseudonyms, self.seals = read_secrets(settings.gateway_keys)
        self.persons = Persons(self.pseudonyms, self.seals)
        self.keyring = Keyring.read(settings.trusted_keys, settings.allow_unsigned)
        self.topics = Topics(settings.kafka, settings.topic_prefix)
        self.transactions = Decoder(Transaction)
        self.feedback = Decoder(Feedback)
        self.audit = AuditTrail(settings.gateway_audit)
        self.kafka_answers = self.redis_answers = self.mongo_answers = False

    async def start(self) -> None:
        timeout = self.settings.redis_timeout_s
        self._redis = Redis.from_url(
            self.settings.redis_url, socket_timeout=timeout, socket_connect_timeout=timeout
        )
        self.shared = SharedState(self._redis)
        within_s = self.settings.gateway_query_s
        self._mongo = open_mongo(self.settings.mongo_url, within_s)
        # Of its own: a query may take longer than what stands before every request.
        self._views = open_redis(self.settings.redis_url, within_s)
        self.queries = Queries(self._mongo, self.settings.mongo_database, self._views, within_s)
        self.live = LiveFeed(self.queries, within_s / 2, self.settings.gateway_ping_s)
        self.publisher = Publisher(self.settings.kafka)
        self.decisions = DecisionFeed(
            self.settings.kafka, self.topics.name("decisions"), self.settings.gateway_decisions
        )
        self.decisions.start()
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        self._looking.cancel()
        lost = await asyncio.to_thread(self.publisher.close)
        if lost:
            log.error("records.lost", count=lost)
        await asyncio.to_thread(self.decisions.close)
        await self.live.close()
        await asyncio.gather(self._redis.aclose(), self._views.aclose(), self._mongo.close())
        self.audit.close()

    def limit(self, subject: str) -> Limit:
        """Of the requests of a client or person."""
        client = self.clients.get(subject)
        return client.limit if client is not None and client.limit is not None else DEFAULT_LIMIT

    async def record(self, act: Act, outcome: Outcome, detail: str | None = None) -> None:
        """Put an entry into the audit trail. Raises AuditError where that is not possible."""
        await asyncio.to_thread(self.audit.append, act, outcome, detail)

    async def _look(self) -> None:
        """See again and again who is there, so that whoever asks whether all is ready costs nothing."""
        while True:
            kafka, redis, stores = await asyncio.gather(
                asyncio.to_thread(self.publisher.reachable), self.shared.answers(), self.queries.answers()
            )
            self.kafka_answers, self.redis_answers, self.mongo_answers = kafka, redis, stores["mongo"]
            await asyncio.sleep(LOOK_EVERY_S)


async def services_of(request: Request) -> Services:
    """The services of the app that a request came to."""
    # A coroutine, for FastAPI sends every function to a thread.
    found: Services = request.app.state.services
    return found
