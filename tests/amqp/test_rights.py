"""The rights of a RabbitMQ user that the documentation gives are enough, and what is missing is named."""

import asyncio
import re
import shlex
import uuid

import celery
import pytest

from celeriac import Celeriac, Retry
from celeriac.errors import BrokerError, BrokerUnavailable, TaskNotFound
from tests.docs.pages import ROOT
from tests.servers import RabbitServer

PAGE = ROOT / "docs" / "how-to" / "secure.md"


@pytest.fixture(scope="module")
def url(rabbit_server: RabbitServer) -> str:
    """The URL of the documented user in a vhost of its own."""
    return make_user(rabbit_server)


def make_user(rabbit_server: RabbitServer, more: str = "") -> str:
    """Make the documented user, with a further pattern in each of its rights; return its URL."""
    found = re.search(r"<!-- rabbit -->\n```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    name = f"shop-{uuid.uuid4().hex}"
    for line in found[1].replace("'^(celery|", f"'^({more}celery|").splitlines():
        program, *arguments = shlex.split(line.removeprefix("$ "))
        assert program == "rabbitmqctl"
        rabbit_server.control(*(name if argument == "shop" else argument for argument in arguments))
    return rabbit_server.url(name).replace("guest:guest", f"{name}:password")


async def test_the_documented_user_can_do_all(url: str):
    app = Celeriac("shop", url, "rpc://")
    tried: list[int] = []

    @app.task(retry=Retry(on=(OSError,), backoff=0.01, max_attempts=3))
    async def add(x: int, y: int) -> int:
        tried.append(1)
        if len(tried) == 1:
            raise OSError("not yet")
        return x + y

    async with app:
        async with app.worker() as worker:
            await worker.ready()
            assert await (await add.send(1, 2)).wait(timeout=20) == 3
            assert await (await add.using(countdown=1.1).send(2, 2)).wait(timeout=20) == 4
            with pytest.raises(TaskNotFound):
                await (await app.send_task("shop.unknown", [1])).wait(timeout=20)
            await app.cancel("an id")
            assert await app.connections().broker.examine(["celery"]) == []
        assert len(await app.connections().broker.dead.list()) == 1


async def test_a_queue_that_is_not_among_the_rights_is_named(url: str):
    app = Celeriac("shop", url, "disabled://", default_queue="urgent")
    with pytest.raises(BrokerError, match=r"'urgent'.*configure") as raised:
        async with app, app.worker() as worker:
            await worker.ready()
    assert not isinstance(raised.value, BrokerUnavailable)


async def test_a_user_with_the_documented_right_more_can_be_asked(rabbit_server: RabbitServer):
    more = ".*celery\\.pidbox"
    assert f"`{more}`" in PAGE.read_text()
    url = make_user(rabbit_server, f"{more}|")
    async with Celeriac("shop", url, "disabled://", remote_control=True) as app, app.worker(name="shop@here"):
        asking = celery.Celery("client", broker=url)

        def ping() -> object:
            return asking.control.ping(destination=["shop@here"], timeout=15)

        assert await asyncio.to_thread(ping) == [{"shop@here": {"ok": "pong"}}]
        asking.close()
