"""Asking workers of a broker of which no more than the URL is known."""

import asyncio

import pytest

from celeriac import Celeriac, ConfigError
from celeriac.client.asker import Asker
from celeriac.servers.urls import fanout_alone
from celeriac.settings import Settings


def asker_of(url: str) -> Asker:
    open_fanout = fanout_alone(url)
    assert open_fanout is not None
    return Asker(open_fanout)


async def test_it_asks_as_an_app_of_default_settings_does(redis_url: str, unique):
    settings = Settings()
    app, asker = Celeriac(unique("asked"), redis_url, settings=settings), asker_of(redis_url)
    worker = app.worker(name=unique("node"), queues=[unique("queue")])
    async with app, worker, asker:
        asked = await asker.control.ask("ping", destination=[worker.name])
        assert asked.by_node == {worker.name: {"ok": "pong"}}
        requests, own = asker.control._reach()[1], app.control._reach()[1]
    assert requests.exchange == own.exchange
    assert requests._serializer == settings.serializer
    assert asker.control._codecs._accepted == app.codecs._accepted


async def test_it_can_be_entered_again(redis_url: str):
    asker = asker_of(redis_url)
    for _ in range(2):
        async with asker:
            await asker.control.ask("ping", destination=["nobody@nowhere"], timeout=0.01)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_it_pauses_no_queue(redis_url: str):
    async with asker_of(redis_url) as asker:
        with pytest.raises(ConfigError, match="by way of an app"):
            await asker.control.pause("celery")


@pytest.mark.parametrize("url", ["sqlite:///asked.db", "memory://", "amqp://localhost", "nothing"])
def test_other_servers_have_no_such_part(url: str):
    assert fanout_alone(url) is None


def test_a_bad_url_is_refused():
    with pytest.raises(ConfigError, match="unknown option"):
        fanout_alone("redis://localhost?nosuch=1")
