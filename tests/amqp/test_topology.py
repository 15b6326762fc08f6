"""What is declared, and what is said when it cannot be."""

import asyncio
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

import amqp
from celeriac import Celeriac
from celeriac.client.revocations import Revocations
from celeriac.errors import BrokerError, CeleriacError
from celeriac.servers.rabbitmq import QueueOptions
from celeriac.testing.steps import drain, number_in, numbered, soon, take_all, take_some
from celeriac.wire.envelope import Route
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer


async def test_a_queue_is_declared_as_kombu_declares_it(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    await make_broker().publish(numbered(1), Route(queue, queue=queue))
    # RabbitMQ refuses each of these if anything about it were different.
    channel.exchange_declare(queue, "direct", durable=True, auto_delete=False)
    channel.queue_declare(queue, durable=True, auto_delete=False)
    channel.basic_publish(amqp.Message(b"2", content_type="application/json"), queue, queue)
    async with make_broker().subscribe([queue]) as subscription:
        assert await drain(subscription, 2) == [1, 2]


async def test_a_queue_that_is_there_is_taken_as_it_is(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-max-length": 5})
    broker = make_broker()
    await broker.publish(numbered(1), Route(queue, queue=queue))
    async with broker.subscribe([queue]) as subscription:
        assert await drain(subscription, 1) == [1]


async def test_a_difference_is_told_with_queue_argument_and_both_values(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-max-priority": 5})
    broker = make_broker(queues={queue: QueueOptions(max_priority=9)})
    with pytest.raises(BrokerError) as raised:
        await broker.publish(numbered(1), Route(queue, queue=queue))
    for part in (queue, "x-max-priority", "9", "5", "delete it"):
        assert part in str(raised.value)


async def test_an_exchange_that_is_not_there_is_named(make_broker: MakeBroker, queue: str) -> None:
    broker = make_broker()
    with pytest.raises(BrokerError, match=queue):
        await broker.publish(numbered(1), Route("key", exchange=queue))
    await broker.publish(numbered(1), Route(queue, queue=queue))  # the connection is as good as before


async def test_topic_and_fanout_exchanges_with_named_bindings(make_broker: MakeBroker, queue: str) -> None:
    topic, fan = f"{queue}.topic", f"{queue}.fan"
    broker = make_broker(
        queues={
            f"{queue}.a": QueueOptions(
                exchange=topic, exchange_type="topic", routing_keys=("feed.#", "*.urgent")
            ),
            f"{queue}.b": QueueOptions(exchange=fan, exchange_type="fanout"),
            f"{queue}.c": QueueOptions(exchange=fan, exchange_type="fanout"),
        }
    )
    async with broker.subscribe([f"{queue}.a", f"{queue}.b", f"{queue}.c"]) as subscription:
        await broker.publish(numbered(1), Route("feed.rss.new", exchange=topic))
        await broker.publish(numbered(2), Route("mail.urgent", exchange=topic))
        with pytest.raises(BrokerError, match="no queue takes"):
            await broker.publish(numbered(3), Route("mail.slow", exchange=topic))
        await broker.publish(numbered(4), Route("", exchange=fan))
        assert sorted(await drain(subscription, 4)) == [1, 2, 4, 4]


async def test_the_url_chooses_quorum_queues(
    make_broker: MakeBroker, channel: amqp.Channel, rabbit_url: str, queue: str
) -> None:
    holder, broker = (make_broker(f"{rabbit_url}?queue_type=quorum") for _ in range(2))
    await broker.publish(numbered(1), Route(queue, queue=queue))
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
    async with holder.subscribe([queue]) as subscription:
        (delivery,) = await take_some(subscription, 1)
        assert (delivery.redelivered, delivery.deliveries) == (False, 1)
        await holder.close()  # as if it had died: nothing was settled
    async with broker.subscribe([queue]) as subscription:
        (again,) = await take_some(subscription, 1)
        assert (again.redelivered, again.deliveries) == (True, 2)
        await again.receipt.ack()


@pytest.fixture(scope="module")
def locked_down(rabbit_server: RabbitServer) -> Iterator[str]:
    """The URL of a user who may read and write, and declare nothing."""
    rabbit_server.control("add_user", "reader", "reader")
    rabbit_server.control("set_permissions", "reader", "^$", ".*", ".*")
    yield rabbit_server.url().replace("guest:guest", "reader:reader")
    rabbit_server.control("delete_user", "reader")


async def test_without_the_right_to_declare_the_error_says_what_to_do(
    make_broker: MakeBroker, locked_down: str, queue: str
) -> None:
    with pytest.raises(BrokerError) as raised:
        await make_broker(locked_down).publish(numbered(1), Route(queue, queue=queue))
    for part in (queue, "configure", "declare=never"):
        assert part in str(raised.value)


@pytest.mark.parametrize("options", ["", "?declare=never"])
async def test_what_others_declared_is_used_without_any_right_to_declare(
    make_broker: MakeBroker, channel: amqp.Channel, locked_down: str, queue: str, options: str
) -> None:
    channel.queue_declare(queue, durable=True, auto_delete=False)
    broker = make_broker(locked_down + options)
    await broker.publish(numbered(1), Route(queue, queue=queue))
    async with broker.subscribe([queue]) as subscription:
        assert await drain(subscription, 1) == [1]


async def test_who_cannot_tell_the_others_still_ends_what_it_began(
    make_broker: MakeBroker, channel: amqp.Channel, locked_down: str, queue: str, proxy: Proxy
) -> None:
    channel.queue_declare(queue, durable=True, auto_delete=False)
    observer = make_broker()
    began: list[str] = []
    has_begun, may_end, has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    line = proxy.url().replace("guest:guest", "reader:reader")
    async with Celeriac("locked", broker=line, backend="disabled://", default_queue=queue) as app:

        @app.task(name="wait")
        async def wait() -> None:
            began.append("once")
            has_begun.set()
            await may_end.wait()
            has_ended.set()

        await wait.send()
        async with app.worker(concurrency=1):
            await soon(has_begun.wait())
            lines = proxy.accepted
            proxy.cut()
            while proxy.accepted == lines:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            may_end.set()
            await soon(has_ended.wait())
            while await observer.depth(queue):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await observer.depth(queue) == 0
        assert [letter for letter in await observer.dead.list() if letter.queue == queue] == []
    assert began == ["once"]


async def test_tls(make_broker: MakeBroker, rabbit_server: RabbitServer, queue: str) -> None:
    broker = make_broker(rabbit_server.tls_url())
    assert "RabbitMQ" in await broker.ping()
    await broker.publish(numbered(1), Route(queue, queue=queue))
    untrusted = make_broker(rabbit_server.tls_url().partition("?")[0])
    with pytest.raises(BrokerError, match="ssl_ca_certs"):
        await untrusted.ping()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda url: url.replace("guest:guest", "guest:wrong"), "password"),
        (lambda url: f"{url}nowhere", "vhost"),
        (lambda url: "amqp://localhost:1", "cannot connect"),
    ],
)
async def test_a_url_that_leads_nowhere_says_what_to_look_at(
    make_broker: MakeBroker, rabbit_url: str, change: Callable[[str], str], named: str
) -> None:
    with pytest.raises(BrokerError, match=named):
        await make_broker(change(rabbit_url)).ping()


async def test_the_second_node_is_used_when_the_first_is_away(
    make_broker: MakeBroker, rabbit_url: str
) -> None:
    assert "RabbitMQ" in await make_broker(f"amqp://localhost:1/;{rabbit_url}").ping()


async def test_priorities_mean_what_they_mean_in_celery(
    make_broker: MakeBroker, channel: amqp.Channel, rabbit_url: str, queue: str
) -> None:
    """The highest goes first, and what carries none is the last, in the order of sending, whoever sent it."""
    broker = make_broker(f"{rabbit_url}?max_priority=9")
    await broker.publish(numbered(0), Route(queue, queue=queue))
    for number, priority in ((1, 9), (2, 0)):
        message = amqp.Message(str(number).encode(), content_type="application/json", priority=priority)
        channel.basic_publish(message, routing_key=queue)
    for number, priority in ((3, 4), (4, 9), (5, 0)):
        await broker.publish(numbered(number, priority), Route(queue, queue=queue))
    assert [number_in(envelope) for envelope in await broker.peek(queue)] == [1, 4, 3, 0, 2, 5]
    with closing(channel):
        carried = [channel.basic_get(queue).properties.get("priority") for _ in range(6)]
        assert [carried[0], carried[1], carried[2], carried[4]] == [9, 9, 4, 0]
        assert carried[3] is None
    async with broker.subscribe([queue]) as subscription:
        assert await drain(subscription, 6) == [1, 4, 3, 0, 2, 5]


async def test_the_highest_priority_goes_first_over_all_queues(
    make_broker: MakeBroker, rabbit_url: str, queue: str
) -> None:
    broker = make_broker(f"{rabbit_url}?max_priority=9")
    names = [f"{queue}.a", f"{queue}.b"]
    for name, priority in zip(names * 2, (3, 0, 9, 6), strict=True):
        await broker.publish(numbered(priority, priority), Route(name, queue=name))
    async with broker.subscribe(names) as subscription:
        assert await drain(subscription, 4, limit=1) == [9, 6, 3, 0]


async def test_a_setting_makes_the_lowest_the_first_as_on_redis(
    channel: amqp.Channel, rabbit_url: str, queue: str
) -> None:
    app = Celeriac(
        "lowest", broker=f"{rabbit_url}?max_priority=9", backend="disabled://", priorities="lowest_first"
    )
    ran: list[int] = []
    done = asyncio.Event()

    async def note(number: int) -> None:
        ran.append(number)
        if len(ran) == 3:
            done.set()

    task = app.register("note", note)
    async with app:
        for number, priority in ((1, 9), (2, 4), (3, None)):
            await task.using(queue=queue, priority=priority).send(number)
        async with app.worker(queues=[queue], concurrency=1):
            await soon(done.wait())
    assert ran == [3, 2, 1]


async def test_an_exchange_of_another_type_is_told(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    channel.exchange_declare(queue, "direct", durable=True, auto_delete=False)
    broker = make_broker(queues={queue: QueueOptions(exchange_type="fanout")})
    with pytest.raises(BrokerError) as raised:
        await broker.publish(numbered(1), Route(queue, queue=queue))
    for part in (queue, "type", "fanout", "direct", "delete it"):
        assert part in str(raised.value)


async def test_declare_never_declares_nothing(
    make_broker: MakeBroker, rabbit_server: RabbitServer, bare_vhost: str, queue: str
) -> None:
    with closing(rabbit_server.client(bare_vhost)) as connection:
        connection.channel().queue_declare(queue, durable=True, auto_delete=False)
    broker = make_broker(rabbit_server.url(bare_vhost) + "?declare=never")
    with pytest.raises(BrokerError, match="no queue takes"):
        await broker.publish(numbered(0), Route("other", queue="other"))
    await broker.publish(numbered(1), Route(queue, queue=queue))
    due = time.time() + 0.3
    await broker.publish(numbered(2), Route(queue, queue=queue, due=due))
    async with broker.subscribe([queue]) as subscription:
        first, second = await take_all(subscription, 2)
        await first.receipt.ack()
        await second.receipt.park(due)  # held here: there are no queues of delays
        assert await drain(subscription, 1) == [2]
        assert time.time() >= due
    async with broker.subscribe([queue]) as subscription:
        await broker.publish(numbered(3), Route(queue, queue=queue))
        (third,) = await take_some(subscription, 1)
        with pytest.raises(BrokerError, match=r"no queue 'celeriac\.dead'"):
            await third.receipt.bury("no use")
        await third.receipt.ack()
    with pytest.raises(BrokerError, match=r"no exchange 'celeriac\.ledger'"):
        await Revocations(broker.board, broker.schedule).add(["id"])
    async with broker.subscribe(["other"]) as subscription:
        with pytest.raises(BrokerError, match="no queue 'other'"):
            await subscription.take(1)
    with closing(rabbit_server.client(bare_vhost)) as connection:
        for name in ("other", "celeriac.ledger", "celeriac.dead", "celeriac.soon", "celery_delayed_0"):
            with pytest.raises(amqp.NotFound):
                connection.channel().queue_declare(name, passive=True)
        for name in (queue, "other", "celeriac.ledger", "celery_delayed_delivery"):
            with pytest.raises(amqp.NotFound):
                connection.channel().exchange_declare(name, "direct", passive=True)


async def test_nothing_is_declared_that_rabbitmq_gives_up(
    rabbit_server: RabbitServer, bare_vhost: str, queue: str
) -> None:
    """RabbitMQ 4.3 knows no global QoS and no transient queue that is not exclusive."""
    url, options = rabbit_server.url(bare_vhost), {"remote_control": True, "send_events": True}
    app = Celeriac("modern", broker=url, backend="rpc://", default_queue=queue, **options)
    add = app.register("modern.add", operator.add)
    async with app, app.worker(name="modern@here"), app.events.listen(enable=True):
        asked = await app.control.ask("ping", destination=["modern@here"], timeout=60)
        assert list(asked.by_node) == ["modern@here"]
        later = await add.using(countdown=0.2).send(40, 2)
        assert await (await add.send(1, 2)).wait(timeout=60) == 3
        assert await later.wait(timeout=60) == 42
        with pytest.raises(CeleriacError):
            await (await app.send_task("nobody.knows")).wait(timeout=60)
        # prefetch of the whole channel; durable and exclusive of each queue
        channels = await asyncio.to_thread(
            rabbit_server.control, "list_channels", "vhost", "global_prefetch_count"
        )
        queues = await asyncio.to_thread(
            rabbit_server.control, "list_queues", "-p", bare_vhost, "durable", "exclusive"
        )
    mine = [line.split() for line in channels.splitlines() if line.startswith(bare_vhost)]
    assert len(mine) > 2
    assert {count for _, count in mine} == {"0"}
    found = [line.split() for line in queues.splitlines()[1:]]
    assert len(found) > 30
    assert ["false", "false"] not in found
