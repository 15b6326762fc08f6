"""The store with a queue for each result keeps the contract; chords cannot be counted there."""

from collections.abc import AsyncIterator

import pytest

from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.queue_results import AmqpBackend
from celeriac.testing.contracts import BackendContract
from celeriac.wire.content import Codecs


@pytest.fixture
async def backend(rabbit_url: str) -> AsyncIterator[AmqpBackend]:
    backend = AmqpBackend(Link(rabbit_url, timeout=30), Codecs(), expires=60)
    yield backend
    await backend.close()


@pytest.fixture
async def second(rabbit_url: str) -> AsyncIterator[AmqpBackend]:
    backend = AmqpBackend(Link(rabbit_url, timeout=30), Codecs(), expires=60)
    yield backend
    await backend.close()


class TestAmqpBackend(BackendContract):
    """Results."""
