"""A Celery app whose broker is a list of two Redis servers: kombu's clients go to the second when the first is away."""

from collections.abc import Iterator

import pytest
from celery import Celery

from celeriac.errors import ConfigError
from celeriac.servers.redis.url import parse_redis_url
from tests.celery_app.conftest import TIMEOUT, StartShop
from tests.celery_connections import disconnect
from tests.servers import RedisServer

ADD = "tests.celery_app.shop.add"


@pytest.fixture
def first() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def second() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_a_worker_takes_from_the_first_and_says_what_to_do_about_the_second(
    start_shop: StartShop, redis_server: RedisServer, first: RedisServer, second: RedisServer
) -> None:
    """A worker for each, as the warning says, and whatever kombu's clients send is done."""
    both, results = f"{first.url()};{second.url()}", redis_server.url()
    worker = start_shop("-P", "threads", "-c", "1", broker=both, backend=results, SHOP_QUEUE="listed")
    assert "broker_url names 2 servers, of which celeriac uses the first alone" in worker.process.output
    assert "start a worker with -b for each" in worker.process.output

    client = Celery("client", broker=both, backend=results, set_as_current=False)
    client.conf.task_default_queue = "listed"
    try:
        assert client.send_task(ADD, (1, 2)).get(timeout=TIMEOUT) == 3
        other = start_shop(
            "-P", "threads", "-c", "1", "-b", second.url(), broker=both, backend=results, SHOP_QUEUE="listed"
        )
        assert "names 2 servers" not in other.process.output
        first.close()
        assert client.send_task(ADD, (3, 4)).get(timeout=TIMEOUT) == 7
    finally:
        disconnect(client)


def test_celeriacs_own_url_names_one_redis(first: RedisServer, second: RedisServer) -> None:
    with pytest.raises(
        ConfigError, match="names several servers: give the URL of one, and start a worker for each"
    ):
        parse_redis_url(f"{first.url()};{second.url()}")
