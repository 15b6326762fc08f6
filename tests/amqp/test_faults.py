"""Whatever happens to the connection: tasks run, results come, and nothing is left behind."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

import amqp
from celeriac import Celeriac, Result
from celeriac.errors import BackendUnavailable, BrokerError, BrokerUnavailable
from celeriac.testing.steps import envelope_of, numbered, soon, take_some
from celeriac.wire.envelope import Route
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer
from tests.wire.captures import FIXTURES

PATIENCE = 60.0


class Shop:
    """An app with a worker, which counts what ran."""

    def __init__(self, url: str, queue: str, publish_timeout: float = 2.0) -> None:
        self.ran: Counter[int] = Counter()
        self.waits = 0
        self.hold = asyncio.Event()
        self.started = asyncio.Event()
        self.app = Celeriac(
            "shop", broker=url, backend="rpc://", default_queue=queue, publish_timeout=publish_timeout
        )
        self.note = self.app.register("shop.note", self._note)
        self.wait = self.app.register("shop.wait", self._wait)

    async def _note(self, number: int, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        self.ran[number] += 1
        return number

    async def _wait(self) -> str:
        self.waits += 1
        self.started.set()
        await self.hold.wait()
        return "waited"

    async def send(self, number: int, seconds: float = 0.0) -> Result[int]:
        """Send until it is there, as a program does that gives ``retry=``."""
        while True:
            try:
                return await self.note.send(number, seconds)
            except (BrokerUnavailable, BackendUnavailable):
                await asyncio.sleep(0.02)

    async def check(self) -> None:
        """Send something and get its value."""
        async with asyncio.timeout(PATIENCE):
            assert await (await self.send(-1)).wait() == -1


@pytest.fixture
async def shop(proxy: Proxy, queue: str) -> AsyncIterator[Shop]:
    shop = Shop(proxy.url("?heartbeat=1"), queue)
    async with shop.app, shop.app.worker(concurrency=5):
        yield shop


async def _cut(proxy: Proxy) -> None:
    proxy.cut()


async def _refuse(proxy: Proxy) -> None:
    proxy.refuse()
    await asyncio.sleep(0.4)
    proxy.accept()


async def _freeze(proxy: Proxy) -> None:
    """A half-open line: neither end hears that the other is gone."""
    proxy.freeze()
    await asyncio.sleep(3.5)
    proxy.cut()
    proxy.thaw()


Fault = Callable[[Proxy], Awaitable[None]]
faults = pytest.mark.parametrize("fault", [_cut, _refuse, _freeze], ids=["cut", "refuse", "freeze"])


@faults
async def test_while_idle(shop: Shop, proxy: Proxy, fault: Fault) -> None:
    await shop.check()
    await fault(proxy)
    await shop.check()


@faults
async def test_while_busy(shop: Shop, proxy: Proxy, fault: Fault) -> None:
    results = [await shop.send(number, 0.02) for number in range(100)]
    await results[5].wait(timeout=PATIENCE)
    await fault(proxy)
    async with asyncio.timeout(PATIENCE):
        assert [await result for result in results] == list(range(100))
    assert shop.ran == Counter(range(100))


@faults
async def test_while_publishing(shop: Shop, proxy: Proxy, fault: Fault) -> None:
    async def publish() -> list[Result[int]]:
        return [await shop.send(number) for number in range(200)]

    publishing = asyncio.create_task(publish())
    while sum(shop.ran.values()) < 20:  # noqa: ASYNC110 - the fault belongs into the middle
        await asyncio.sleep(0.01)
    await fault(proxy)
    async with asyncio.timeout(PATIENCE):
        assert [await result for result in await publishing] == list(range(200))


@faults
async def test_while_a_result_is_waited_for(shop: Shop, proxy: Proxy, fault: Fault) -> None:
    result = await shop.wait.send()
    waiting = asyncio.create_task(result.wait(timeout=PATIENCE))
    await soon(shop.started.wait())
    await fault(proxy)
    shop.hold.set()
    assert await waiting == "waited"


async def test_another_node_is_used_when_one_goes_away(
    rabbit_server: RabbitServer, proxy: Proxy, queue: str
) -> None:
    async with Proxy(rabbit_server.port) as other:
        shop = Shop(f"{proxy.url('?heartbeat=5')};{other.url()}", queue)
        async with shop.app, shop.app.worker(concurrency=5):
            await shop.check()
            assert (proxy.open_lines, other.open_lines) == (1, 0)
            results = [await shop.send(number, 0.005) for number in range(100)]
            proxy.refuse()
            async with asyncio.timeout(PATIENCE):
                assert [await result for result in results] == list(range(100))
            await shop.check()
            assert (proxy.open_lines, other.open_lines) == (0, 1)


async def test_no_cpu_is_burnt_while_the_broker_is_away(shop: Shop, proxy: Proxy) -> None:
    await shop.check()
    proxy.refuse()
    waiting = asyncio.create_task(shop.send(1))
    await asyncio.sleep(0.3)
    cpu, tried = time.process_time(), proxy.accepted
    await asyncio.sleep(1.5)
    assert time.process_time() - cpu < 0.4
    assert proxy.accepted - tried < 15
    proxy.accept()
    assert await (await waiting).wait(timeout=PATIENCE) == 1


# --- a node to maltreat


@pytest.fixture(scope="module")
def kept_rabbit() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.fixture
def own_rabbit(kept_rabbit: RabbitServer) -> Iterator[RabbitServer]:
    yield kept_rabbit
    kept_rabbit.recover()


@pytest.fixture(scope="module")
def impatient_rabbit() -> Iterator[RabbitServer]:
    """Closes a channel that does not acknowledge within two seconds; a busy machine may need more than one."""
    with RabbitServer(
        advanced="[{rabbit, [{consumer_timeout, 2000}, {channel_tick_interval, 300}]}]"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that outlives the tests: a node dies with the thread that started it."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def _close_connections(server: RabbitServer) -> None:
    server.control("close_all_connections", "by a test")


def _restart_application(server: RabbitServer) -> None:
    server.control("stop_app")
    server.control("start_app")


def _kill_node(server: RabbitServer) -> None:
    server.kill()
    server.start()


def _raise_alarm(server: RabbitServer) -> None:
    server.control("set_vm_memory_high_watermark", "0")
    time.sleep(1)
    server.control("set_vm_memory_high_watermark", "0.4")


@pytest.mark.parametrize(
    "trouble",
    [_close_connections, _restart_application, _kill_node, _raise_alarm],
    ids=["close_all_connections", "stop_app-start_app", "killed-node", "memory-alarm"],
)
async def test_a_node_in_trouble(
    own_rabbit: RabbitServer,
    thread: ThreadPoolExecutor,
    queue: str,
    trouble: Callable[[RabbitServer], None],
) -> None:
    shop = Shop(own_rabbit.url(), queue)
    async with shop.app, shop.app.worker(concurrency=10):
        await shop.check()
        before = await _open_on(own_rabbit)
        waiting = asyncio.create_task((await shop.wait.send()).wait(timeout=2 * PATIENCE))
        await soon(shop.started.wait())
        results = [await shop.send(number, 0.01) for number in range(50)]
        troubled = asyncio.get_running_loop().run_in_executor(thread, trouble, own_rabbit)
        number = 50
        while not troubled.done():
            results.append(await shop.send(number))
            number += 1
            await asyncio.sleep(0.02)
        await troubled
        shop.hold.set()
        async with asyncio.timeout(2 * PATIENCE):
            assert [await result for result in results] == list(range(number))
            assert await waiting == "waited"
            await shop.check()
        assert shop.waits == 1
        await _until_open(own_rabbit, before)


async def test_twenty_times_in_a_row(own_rabbit: RabbitServer, queue: str) -> None:
    """Tasks and results are intact, and no connection or channel is left over."""
    async with Proxy(own_rabbit.port) as proxy:
        # No heartbeat of a second, which a busy machine may be late with: not all channels were there to be counted.
        shop = Shop(proxy.url(), queue)
        async with shop.app, shop.app.worker(concurrency=5):
            await shop.check()
            before = await _open_on(own_rabbit)
            results = [await shop.send(number, 0.005) for number in range(400)]
            for _ in range(20):
                proxy.cut()
                await shop.check()
            async with asyncio.timeout(PATIENCE):
                assert [await result for result in results] == list(range(400))
            del shop.ran[-1]
            assert shop.ran == Counter(range(400))
            assert proxy.open_lines == 1
            await _until_open(own_rabbit, before)


async def _open_on(server: RabbitServer) -> str:
    """How many connections and channels a node has open, as it counts them."""
    count = "{length(rabbit_networking:connections()), length(rabbit_channel:list())}."
    return await asyncio.to_thread(server.control, "eval", count)


async def _until_open(server: RabbitServer, expected: str) -> None:
    """Wait until a node has no more open than that: it may still be clearing up."""
    for _ in range(10):
        if (found := await _open_on(server)) == expected:
            return
    raise AssertionError(f"open are {found.strip()} connections and channels, not {expected.strip()}")


async def test_an_eta_beyond_the_consumer_timeout_runs_once(
    impatient_rabbit: RabbitServer, queue: str
) -> None:
    """Whether celeriac's client sent it, or a stock Celery client, which puts it on the queue at once."""
    shop = Shop(
        impatient_rabbit.url(), queue, PATIENCE
    )  # the queues of delays are many, and made within one time
    raw = json.loads((FIXTURES / "msg.none.celery57-v2.amqp.json").read_text())["raw"]
    async with shop.app, shop.app.worker(concurrency=5) as worker:
        await worker.ready()
        # The first message for later makes the queues of delays: a busy machine takes longer for it than the timeout.
        assert await (await shop.note.using(countdown=0.1).send(3)).wait(timeout=PATIENCE) == 3
        due = datetime.now(UTC) + timedelta(seconds=3.5)
        headers = raw["headers"] | {"task": "shop.note", "id": queue, "eta": due.isoformat()}
        message = amqp.Message(
            b'[[2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
            application_headers=headers,
            **raw["properties"] | {"correlation_id": queue, "reply_to": await _address(shop)},
        )
        with closing(impatient_rabbit.client()) as connection:
            connection.channel().basic_publish(message, routing_key=queue)
        result = await shop.note.using(eta=due).send(1)
        assert await result.wait(timeout=PATIENCE) == 1
        assert await shop.app.result(queue).wait(timeout=PATIENCE) == 2
        assert datetime.now(UTC) >= due
        await shop.check()
    assert (shop.ran[1], shop.ran[2]) == (1, 1)


async def _address(shop: Shop) -> str:
    replies = shop.app.connections().backend.replies
    assert replies is not None
    return await replies.address()


async def test_a_receipt_is_void_when_the_broker_took_the_message_back(
    impatient_rabbit: RabbitServer, make_broker: MakeBroker, queue: str
) -> None:
    broker = make_broker(impatient_rabbit.url())
    await broker.publish(numbered(1), Route(queue, queue=queue))
    async with broker.subscribe([queue]) as subscription:
        (late,) = await take_some(subscription, 1)
        (again,) = await take_some(subscription, 1)  # RabbitMQ lost patience and closed the channel
        assert envelope_of(again).redelivered
        with pytest.raises(Exception, match="not ours any more"):
            await late.receipt.ack()
        await again.receipt.ack()


async def test_publishing_during_an_alarm_says_why_it_waits(
    own_rabbit: RabbitServer, make_broker: MakeBroker, queue: str
) -> None:
    broker = make_broker(own_rabbit.url(), timeout=1.0)
    await broker.publish(numbered(1), Route(queue, queue=queue))
    await asyncio.to_thread(own_rabbit.control, "set_vm_memory_high_watermark", "0")
    try:
        with pytest.raises(BrokerError, match="takes no messages now"):
            await broker.publish(numbered(2), Route(queue, queue=queue))
    finally:
        await asyncio.to_thread(own_rabbit.control, "set_vm_memory_high_watermark", "0.4")
