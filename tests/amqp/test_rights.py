"""The rights of a RabbitMQ user that the documentation gives are enough, and what is missing is named."""

import re
import shlex
import uuid

import pytest

from celeriac import Celeriac, Retry
from celeriac.errors import BrokerError, BrokerUnavailable, TaskNotFound
from tests.docs.pages import ROOT
from tests.servers import RabbitServer

PAGE = ROOT / "docs" / "how-to" / "secure.md"


@pytest.fixture(scope="module")
def url(rabbit_server: RabbitServer) -> str:
    """The URL of the documented user in a vhost of its own."""
    found = re.search(r"<!-- rabbit -->\n```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    name = f"shop-{uuid.uuid4().hex}"
    for line in found[1].splitlines():
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
