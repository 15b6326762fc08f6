"""Publishing: encode, route, hand over; and again while the broker is away, if asked to."""

from datetime import UTC, datetime

import pytest

from celeriac import BrokerUnavailable, Retry
from celeriac.client.publisher import Publisher
from celeriac.errors import EncodeError
from celeriac.routing import SendOptions
from celeriac.settings import Settings
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Route
from celeriac.wire.task import TaskMessage, decode

NOW = 1_900_000_000.0


class StoppedClock:
    def now(self):
        return NOW

    def monotonic(self):
        return 0.0


class Flaky:
    """A broker that is away for so many publishes."""

    def __init__(self, away=0):
        self.away = away
        self.tries = 0
        self.taken = []

    async def publish(self, envelope, route):
        self.tries += 1
        if self.tries <= self.away:
            raise BrokerUnavailable("away")
        self.taken.append((envelope, route))

    async def publish_many(self, messages):
        self.taken.extend(messages)


def publisher(broker, **settings):
    return Publisher(broker, Codecs(), Settings(**settings), StoppedClock())


MESSAGE = TaskMessage(id="i", task="t")
QUICK = Retry(on=(BrokerUnavailable,), max_attempts=3, backoff=0.0)


async def test_a_message_and_where_it_goes():
    broker = Flaky()
    await publisher(broker, default_queue="usual").publish(MESSAGE)
    [(envelope, route)] = broker.taken
    assert route == Route("usual", "", "usual")
    assert decode(envelope, Codecs()).id == "i"


async def test_times_count_from_the_clock_and_the_message_has_the_last_word():
    broker = Flaky()
    eta = datetime(2040, 1, 1, tzinfo=UTC)
    send = publisher(broker)
    await send.publish(MESSAGE, SendOptions(countdown=10, expires=20))
    await send.publish(
        TaskMessage(id="i", task="t", eta=eta, expires=eta), SendOptions(countdown=10, expires=20)
    )
    first, second = [decode(envelope, Codecs()) for envelope, _ in broker.taken]
    assert (first.eta.timestamp(), first.expires.timestamp()) == (NOW + 10, NOW + 20)
    assert (second.eta, second.expires) == (eta, eta)
    assert broker.taken[0][0].expiration == "20000"


async def test_without_a_policy_it_is_tried_once():
    broker = Flaky(away=1)
    with pytest.raises(BrokerUnavailable):
        await publisher(broker).publish(MESSAGE)
    assert broker.tries == 1


async def test_with_a_policy_it_is_tried_as_often_as_that_says():
    broker = Flaky(away=2)
    await publisher(broker).publish(MESSAGE, SendOptions(retry=QUICK))
    assert (broker.tries, len(broker.taken)) == (3, 1)
    broker = Flaky(away=3)
    with pytest.raises(BrokerUnavailable):
        await publisher(broker).publish(MESSAGE, SendOptions(retry=QUICK))
    assert broker.tries == 3


async def test_many_keep_their_order_and_routes():
    broker = Flaky()
    pairs = [(TaskMessage(id=str(n), task="t"), SendOptions(queue=f"q{n}")) for n in range(5)]
    await publisher(broker).publish_many(pairs)
    assert [(decode(envelope, Codecs()).id, route.queue) for envelope, route in broker.taken] == [
        (str(n), f"q{n}") for n in range(5)
    ]


async def test_an_unknown_compression_is_told():
    with pytest.raises(EncodeError, match="unknown compression 'shrink'"):
        await publisher(Flaky()).publish(MESSAGE, SendOptions(compression="shrink"))
