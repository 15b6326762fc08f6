"""The rights of a RabbitMQ user that the documentation gives are enough, and what is missing is named."""

import asyncio
import re
import shlex
import uuid

import celery
import pytest

from celeriac import Celeriac, Retry
from celeriac.errors import BackendError, BrokerError, BrokerUnavailable, TaskNotFound
from celeriac.servers.rabbitmq import AmqpBroker
from tests.docs.pages import ROOT
from tests.servers import RabbitServer

PAGE = ROOT / "docs" / "how-to" / "secure.md"


@pytest.fixture(scope="module")
def url(rabbit_server: RabbitServer) -> str:
    """The URL of the documented user in a vhost of its own."""
    return make_user(rabbit_server)


def make_user(rabbit_server: RabbitServer) -> str:
    """Make the documented user; return its URL."""
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
        dead = app.connections().broker.dead
        before = len(await dead.list())
        async with app.worker() as worker:
            await worker.ready()
            assert await (await add.send(1, 2)).wait(timeout=60) == 3
            assert await (await add.using(countdown=1.1).send(2, 2)).wait(timeout=60) == 4
            with pytest.raises(TaskNotFound):
                await (await app.send_task("shop.unknown", [1])).wait(timeout=60)
            await app.cancel("an id")
            assert await app.connections().broker.examine(["celery"]) == []
            assert await app.connections().backend.examine() == []
        assert len(await dead.list()) == before + 1


async def test_a_queue_that_is_not_among_the_rights_is_named(url: str):
    app = Celeriac("shop", url, "disabled://", default_queue="urgent")
    with pytest.raises(BrokerError, match=r"'urgent'.*configure") as raised:
        async with app, app.worker() as worker:
            await worker.ready()
    assert not isinstance(raised.value, BrokerUnavailable)


async def test_the_documented_user_can_be_asked(url: str):
    async with Celeriac("shop", url, "disabled://") as app, app.worker(name="shop@here"):
        asking = celery.Celery("client", broker=url)

        def ping() -> object:
            return asking.control.ping(destination=["shop@here"], timeout=15)

        assert await asyncio.to_thread(ping) == [{"shop@here": {"ok": "pong"}}]
        asking.close()


def make_limited(rabbit_server: RabbitServer, configure: str, write: str, read: str) -> tuple[str, str]:
    """Make a user with these rights in a vhost of its own; return the URLs of the user and of one who may do all."""
    name = f"shop-{uuid.uuid4().hex}"
    rabbit_server.add_user(name, "password", configure, write, read)
    url = rabbit_server.url(name)
    return url.replace("guest:guest", f"{name}:password"), url


async def examine(url: str, queue: str = "celery") -> list[str]:
    broker = AmqpBroker(url)
    try:
        return [finding.text for finding in await broker.examine([queue])]
    finally:
        await broker.close()


async def test_the_trial_of_rights_leaves_nothing_behind(rabbit_server: RabbitServer):
    url, _ = make_limited(rabbit_server, ".*", ".*", ".*")
    assert await examine(url) == []
    vhost = url.rpartition("/")[2]
    for listed in ("list_queues", "list_exchanges"):
        assert "celer" not in rabbit_server.control("-q", listed, "-p", vhost, "name")


async def test_what_results_need_is_tried_too(rabbit_server: RabbitServer):
    url, _ = make_limited(rabbit_server, "^$", "^amq.default$", "^$")
    async with Celeriac("shop", "memory://", url.replace("amqp://", "rpc://")) as app:
        [finding] = await app.connections().backend.examine()
    assert re.search(r"lacks rights to '[0-9a-f-]{36}' \(configure, read\): this user can wait", finding.text)
    async with Celeriac("shop", "memory://", url) as app:
        with pytest.raises(
            BackendError, match=r"rights to '[0-9a-f]{32}' \(configure\), so no result can be stored"
        ):
            await app.connections().backend.examine()


@pytest.mark.parametrize("there", [True, False])
async def test_each_right_that_no_task_can_do_without_is_named(rabbit_server: RabbitServer, there: bool):
    url, owner = make_limited(rabbit_server, "^$", "^$", "^$")
    if there:
        async with Celeriac("owner", owner, "disabled://") as app:
            await app.send_task("a.task")
    with pytest.raises(BrokerError) as raised:
        await examine(url)
    assert not isinstance(raised.value, BrokerUnavailable)
    assert f"'celery' ({'read' if there else 'configure, write, read'}), 'amq.default' (write)" in str(
        raised.value
    )


async def test_what_works_without_a_right_is_told_with_what_it_costs(rabbit_server: RabbitServer):
    url, _ = make_limited(rabbit_server, "^celery$", r"^(celery|amq\.default)$", "^celery$")
    delays, ledger, dead = await examine(url)
    assert "celery_delayed" in delays
    assert "later" in delays
    assert "celeriac.ledger" in ledger
    assert "revoked" in ledger
    assert "celeriac.dead" in dead
    assert "set aside" in dead


async def test_a_queue_that_may_not_be_made_is_named(rabbit_server: RabbitServer):
    url, _ = make_limited(rabbit_server, ".*", ".*", ".*")
    with pytest.raises(BrokerError, match=r"'celery'.*declare=never"):
        await examine(f"{url}?declare=never")
