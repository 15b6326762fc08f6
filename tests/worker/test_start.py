"""When a worker inside a program has started."""

import asyncio
from collections.abc import Callable

import pytest

from celeriac import Celeriac
from celeriac.errors import BrokerError, BrokerUnavailable, ConfigError
from tests.servers import RedisServer

WAIT = 60.0


async def test_within_the_block_it_holds_its_queues(app: Celeriac):
    async with app.worker() as worker:
        await asyncio.wait_for(worker.ready(), WAIT)
    with pytest.raises(ConfigError, match="does not run"):
        await worker.ready()


async def test_a_broker_that_refuses_is_an_error_before_the_block(secured_redis: RedisServer):
    url = f"redis://:wrong@127.0.0.1:{secured_redis.port}/0"
    entered = False
    async with Celeriac("refused", broker=url, backend="disabled://") as app:
        with pytest.raises(BrokerError, match="refused") as error:
            async with app.worker():
                entered = True
    assert not isinstance(error.value, BrokerUnavailable)
    assert not entered


async def test_while_the_broker_is_away_the_block_is_entered_and_it_goes_on_trying(
    own_redis: RedisServer, unique: Callable[[str], str]
):
    own_redis.kill()
    url = own_redis.url()
    async with (
        Celeriac("late", broker=url, backend=url, default_queue=unique("q"), publish_timeout=0.3) as app,
        app.worker() as worker,
    ):
        own_redis.start()
        await asyncio.wait_for(worker.ready(), WAIT)
