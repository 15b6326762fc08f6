"""Apps whose broker is the memory of the test's event loop, and a look at what they sent."""

from collections.abc import Awaitable, Callable

import pytest

from celeriac import Celeriac
from celeriac.wire.envelope import Envelope
from celeriac.wire.task import TaskMessage, decode

Sent = Callable[..., Awaitable[list[TaskMessage]]]


@pytest.fixture
def app() -> Celeriac:
    """An app on memory; it lives in the test's loop."""
    return Celeriac("shop", broker="memory://")


@pytest.fixture
def envelopes(app: Celeriac) -> Callable[..., Awaitable[list[Envelope]]]:
    """What waits in a queue or is parked for it, as the broker carries it."""

    async def look(queue: str = "celery") -> list[Envelope]:
        broker = app.connections().broker
        waiting = await broker.peek(queue, 1000)
        waiting += [parked.envelope for parked in await broker.schedule.list() if parked.queue == queue]
        return [envelope for envelope in waiting if isinstance(envelope, Envelope)]

    return look


@pytest.fixture
def sent(app: Celeriac, envelopes: Callable[..., Awaitable[list[Envelope]]]) -> Sent:
    """What waits in a queue or is parked for it, as a worker reads it."""

    async def look(queue: str = "celery") -> list[TaskMessage]:
        messages = [decode(envelope, app.codecs) for envelope in await envelopes(queue)]
        return [message for message in messages if isinstance(message, TaskMessage)]

    return look
