"""What the fanout of RabbitMQ shares with kombu, and what stays behind: nothing but the exchanges."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kombu
import kombu.pidbox
import pytest

from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.errors import BrokerError
from celeriac.wire.envelope import Envelope
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer


@pytest.fixture
def namespace(unique: Callable[[str], str]) -> str:
    return unique("ns")


def pidbox_of(namespace: str, node: str) -> Binding:
    return Binding(exchange=Exchange(f"{namespace}.pidbox"), queue=f"{node}.{namespace}.pidbox")


def as_json(value: Any, **headers: Any) -> Envelope:
    return Envelope(
        body=json.dumps(value).encode(),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"clock": 1} | headers,
        delivery_mode=1,
    )


async def in_thread(run: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, run), 60)


def mailbox(connection: kombu.Connection, namespace: str) -> Any:
    """What Celery uses, with its settings."""
    return kombu.pidbox.Mailbox(
        namespace, type="fanout", connection=connection, queue_ttl=300, queue_expires=10, reply_queue_ttl=300
    )(connection)


async def test_kombu_asks_and_gets_our_answers(
    make_broker: MakeBroker, rabbit_url: str, namespace: str
) -> None:
    broker = make_broker()

    def ask() -> Any:
        with kombu.Connection(rabbit_url) as connection:
            return mailbox(connection, namespace).call(["ours"], "ping", timeout=10)

    async with broker.fanout.listen([pidbox_of(namespace, "ours")]) as heard:
        asking = asyncio.create_task(in_thread(ask))
        request = await asyncio.wait_for(anext(heard), 60)
        assert isinstance(request, Envelope)
        body = json.loads(request.body)
        assert (body["method"], body["destination"]) == ("ping", ["ours"])
        place = ReplyTo(body["reply_to"]["exchange"], body["reply_to"]["routing_key"])
        assert await broker.fanout.answer(place, as_json({"ours": {"ok": "pong"}}, ticket=body["ticket"]))
        assert await asking == [{"ours": {"ok": "pong"}}]


async def test_we_ask_and_get_the_answers_of_kombu(
    make_broker: MakeBroker, rabbit_url: str, namespace: str
) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    served: list[str] = []

    def ping(state: object) -> dict[str, str]:
        served.append("ping")
        return {"ok": "pong"}

    def serve() -> None:
        with kombu.Connection(rabbit_url) as connection:
            box = mailbox(connection, namespace)
            node = box.Node("theirs", channel=connection.channel(), handlers={"ping": ping}, state="state")
            with node.listen():
                loop.call_soon_threadsafe(ready.set)
                while not served:
                    connection.drain_events(timeout=15)

    serving = asyncio.create_task(in_thread(serve))
    await asyncio.wait_for(ready.wait(), 60)
    reply_to = ReplyTo(f"reply.{namespace}.pidbox", "asker")
    question = {"method": "ping", "arguments": {}, "destination": None, "ticket": "t"} | {
        "reply_to": {"exchange": reply_to.exchange, "routing_key": reply_to.key}
    }
    broker = make_broker()
    async with (
        asyncio.timeout(60),
        broker.fanout.ask(Exchange(f"{namespace}.pidbox"), as_json(question), reply_to, expect=1) as answers,
    ):
        got = [json.loads(answer.body) async for answer in answers if isinstance(answer, Envelope)]
    assert got == [{"theirs": {"ok": "pong"}}]
    await serving


async def test_a_listener_is_declared_as_kombu_declares_it_and_leaves_no_queue(
    make_broker: MakeBroker, rabbit_server: RabbitServer, rabbit_url: str, namespace: str
) -> None:
    """RabbitMQ 4.3 has no transient queues but exclusive ones."""

    def declared() -> dict[str, list[str]]:
        text = rabbit_server.control(
            "list_queues",
            "--quiet",
            "--no-table-headers",
            "name",
            "durable",
            "auto_delete",
            "exclusive",
            "arguments",
        )
        rows = [line.split("\t") for line in text.splitlines() if namespace in line]
        return {name: facts for name, *facts in rows}

    node, reply_to = pidbox_of(namespace, "node"), ReplyTo(f"reply.{namespace}.pidbox", "me")
    broker = make_broker()
    async with (
        broker.fanout.listen([node]),
        broker.fanout.ask(node.exchange, as_json(1), reply_to),
    ):
        ours = declared()
    with kombu.Connection(rabbit_url) as connection:
        box = mailbox(connection, namespace)
        with box.Node("node", channel=connection.channel()).listen():
            queue = box.reply_queue(connection.channel())
            queue.declare()
            theirs = declared()
            theirs["me.reply." + namespace + ".pidbox"] = theirs.pop(queue.name)
    assert ours == theirs
    assert set(ours) == {node.queue, reply_to.queue}
    async with asyncio.timeout(60):
        while await asyncio.to_thread(declared):  # noqa: ASYNC110 - RabbitMQ tells nobody
            await asyncio.sleep(0.1)


async def test_a_name_in_use_is_refused_by_name(make_broker: MakeBroker, namespace: str) -> None:
    binding = pidbox_of(namespace, "node@host")
    async with make_broker().fanout.listen([binding]):
        other = make_broker()
        with pytest.raises(BrokerError, match=f"node@host.{namespace}.pidbox"):
            async with other.fanout.listen([binding]):
                pass
        await other.fanout.publish(binding.exchange, as_json(1))


async def test_a_lost_connection_is_made_anew_under_the_same_name(
    make_broker: MakeBroker, proxy: Proxy, namespace: str
) -> None:
    broker, other, binding = make_broker(proxy.url()), make_broker(), pidbox_of(namespace, "node")
    async with broker.fanout.listen([binding]) as heard:
        proxy.cut()
        async with asyncio.timeout(60):
            # Until the server notices the cut, it puts messages into the queue that goes with the line.
            hearing = asyncio.ensure_future(anext(heard))
            while not hearing.done():
                await other.fanout.publish(binding.exchange, as_json(1))
                await asyncio.wait([hearing], timeout=0.05)
            got = hearing.result()
        assert isinstance(got, Envelope)
        assert got.body == b"1"


async def test_an_answer_to_an_exchange_that_never_was_harms_no_publish(
    make_broker: MakeBroker, namespace: str
) -> None:
    broker = make_broker()
    answers = await asyncio.gather(
        *(
            broker.fanout.answer(ReplyTo(f"reply.{namespace}-{number}", "me"), as_json(1))
            for number in range(20)
        ),
        *(broker.fanout.publish(Exchange(f"{namespace}.{number}"), as_json(1)) for number in range(20)),
    )
    assert not any(answers)
