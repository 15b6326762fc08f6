"""What the fanout of Redis shares with kombu, and what it leaves behind: nothing."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import celery
import kombu
import kombu.pidbox
import pytest

from celeriac import Celeriac
from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.errors import BrokerError, ConfigError
from celeriac.servers.redis.url import parse_redis_url
from celeriac.wire.envelope import Envelope
from tests.redis.conftest import MakeBroker
from tests.redis.messages import message, number_of, route
from tests.servers import RedisServer


@pytest.fixture
def namespace(unique: Callable[[str], str]) -> str:
    return unique("ns")


def pidbox(namespace: str) -> Exchange:
    return Exchange(f"{namespace}.pidbox")


def as_json(value: Any) -> Envelope:
    return Envelope(
        body=json.dumps(value).encode(),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"clock": 1},
    )


async def in_thread(run: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, run), 60)


def kombu_connection(url: str, prefix: str) -> kombu.Connection:
    return kombu.Connection(url, transport_options={"global_keyprefix": prefix})


async def test_kombu_asks_and_gets_our_answers(
    own_redis: RedisServer, make_broker: MakeBroker, prefix: str, namespace: str
) -> None:
    broker = make_broker(own_redis.url(3))

    def ask() -> Any:
        with kombu_connection(own_redis.url(3), prefix) as connection:
            mailbox = kombu.pidbox.Mailbox(namespace, type="fanout", connection=connection)
            return mailbox(connection).call(["ours"], "ping", timeout=10)

    async with broker.fanout.listen([Binding(exchange=pidbox(namespace))]) as heard:
        asking = asyncio.create_task(in_thread(ask))
        request = await asyncio.wait_for(anext(heard), 60)
        assert isinstance(request, Envelope)
        body = json.loads(request.body)
        assert (body["method"], body["destination"]) == ("ping", ["ours"])
        place = body["reply_to"]
        reply = as_json({"ours": {"ok": "pong"}})
        reply.headers["ticket"] = body["ticket"]
        assert await broker.fanout.answer(ReplyTo(place["exchange"], place["routing_key"]), reply)
        assert await asking == [{"ours": {"ok": "pong"}}]


async def test_we_ask_and_get_the_answers_of_kombu(
    own_redis: RedisServer, make_broker: MakeBroker, prefix: str, namespace: str
) -> None:
    broker = make_broker(own_redis.url(3))
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    served: list[str] = []

    def ping(state: object) -> dict[str, str]:
        served.append("ping")
        return {"ok": "pong"}

    def serve() -> None:
        with kombu_connection(own_redis.url(3), prefix) as connection:
            mailbox = kombu.pidbox.Mailbox(namespace, type="fanout", connection=connection)(connection)
            node = mailbox.Node("theirs", channel=connection.channel(), handlers={"ping": ping})
            node.state = "state"
            with node.listen():
                loop.call_soon_threadsafe(ready.set)
                while not served:
                    connection.drain_events(timeout=15)

    serving = asyncio.create_task(in_thread(serve))
    await asyncio.wait_for(ready.wait(), 60)
    with own_redis.client() as client:
        async with asyncio.timeout(60):
            while not client.pubsub_numpat():  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.01)
    reply_to = ReplyTo(f"reply.{namespace}.pidbox", "asker")
    question = {"method": "ping", "arguments": {}, "destination": None, "ticket": "t"} | {
        "reply_to": {"exchange": reply_to.exchange, "routing_key": reply_to.key}
    }
    async with (
        asyncio.timeout(60),
        broker.fanout.ask(pidbox(namespace), as_json(question), reply_to) as answers,
    ):
        got = [json.loads(answer.body) async for answer in answers if isinstance(answer, Envelope)]
    assert got == [{"theirs": {"ok": "pong"}}]
    await serving


async def test_listening_shares_the_connection_that_waiting_is_subscribed_on(
    own_redis: RedisServer, make_broker: MakeBroker, queue: str
) -> None:
    broker = make_broker(own_redis.url())
    events = Exchange("celeryev", by_key=True)
    async with (
        broker.subscribe([queue]) as subscription,
        broker.fanout.listen(
            [Binding(exchange=Exchange("celery.pidbox")), Binding(exchange=events, key="worker.elect")]
        ) as heard,
        broker.fanout.listen([Binding(exchange=events, key="#")]) as everything,
    ):
        taking = asyncio.create_task(subscription.take(1))
        await asyncio.sleep(0.1)
        with own_redis.client() as client:
            assert len(client.client_list(_type="pubsub")) == 1
        await broker.fanout.publish(events, message(1), "task.multi")
        assert number_of(await asyncio.wait_for(anext(everything), 30)) == 1
        await broker.fanout.publish(Exchange("celery.pidbox"), message(2))
        assert number_of(await asyncio.wait_for(anext(heard), 30)) == 2
        await broker.publish(message(3), route(queue))
        (delivery,) = await asyncio.wait_for(taking, 7)
        await delivery.receipt.ack()


async def test_a_cut_connection_is_made_anew(own_redis: RedisServer, make_broker: MakeBroker) -> None:
    broker, other = make_broker(own_redis.url()), make_broker(own_redis.url())
    exchange = Exchange("some.pidbox")
    async with broker.fanout.listen([Binding(exchange=exchange)]) as heard:
        own_redis.kill()
        own_redis.start()
        async with asyncio.timeout(60):
            while not await published(other, exchange):  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.05)
            assert number_of(await anext(heard)) == 1


async def published(broker: Any, exchange: Exchange) -> int:
    try:
        return int(await broker.fanout.publish(exchange, message(1)))
    except BrokerError:
        return 0


async def test_an_answer_has_its_end_in_the_step_that_brings_it(
    own_redis: RedisServer, make_broker: MakeBroker, prefix: str
) -> None:
    """A client of kombu that is killed while it asks leaves its binding; nobody fetches what comes there."""
    broker, reply_to = make_broker(own_redis.url()), ReplyTo("reply.celery.pidbox", "dead")
    with own_redis.client() as client:
        client.sadd(f"{prefix}_kombu.binding.reply.celery.pidbox", f"dead\x06\x16\x06\x16{reply_to.queue}")
        for _ in range(2):
            assert await broker.fanout.answer(reply_to, message(1), keep=3.0)
            assert 0 < client.pttl(prefix + reply_to.queue) <= 3000


async def test_asking_leaves_no_key(own_redis: RedisServer, make_broker: MakeBroker, prefix: str) -> None:
    broker, exchange = make_broker(own_redis.url()), Exchange("celery.pidbox")
    reply_to = ReplyTo("reply.celery.pidbox", "me")
    with own_redis.client() as client:
        async with (
            broker.fanout.listen([Binding(exchange=exchange)]),
            broker.fanout.ask(exchange, message(1), reply_to) as answers,
        ):
            assert client.smembers(f"{prefix}_kombu.binding.reply.celery.pidbox") == {
                f"me\x06\x16\x06\x16{reply_to.queue}".encode()
            }
            hour = client.zscore(f"{prefix}_kombu.binding_deadlines", reply_to.exchange)
            assert 3500 < hour / 1000 - float(client.time()[0]) < 3700
            await broker.fanout.answer(reply_to, message(2))
            await broker.fanout.answer(reply_to, message(3))
            assert number_of(await asyncio.wait_for(anext(answers), 30)) == 2
        assert client.keys(f"{prefix}*") == []


async def test_one_question_to_three_nodes_is_eight_commands_at_most(
    own_redis: RedisServer, make_broker: MakeBroker
) -> None:
    asker, nodes = make_broker(own_redis.url()), [make_broker(own_redis.url()) for _ in range(3)]
    exchange, reply_to = Exchange("celery.pidbox"), ReplyTo("reply.celery.pidbox", "me")
    ready = asyncio.Barrier(4)

    async def serve(node: Any) -> None:
        async with node.fanout.listen([Binding(exchange=exchange)]) as heard:
            await ready.wait()
            async for _ in heard:
                await node.fanout.answer(reply_to, message(7))

    async def ask() -> list[int]:
        async with asyncio.timeout(60), asker.fanout.ask(exchange, message(1), reply_to) as answers:
            return [number_of(answer) async for answer in answers]

    serving = [asyncio.create_task(serve(node)) for node in nodes]
    await asyncio.wait_for(ready.wait(), 60)
    assert await ask() == [7, 7, 7]
    with own_redis.client() as client:
        client.config_resetstat()
        assert await ask() == [7, 7, 7]
        calls = {name: facts["calls"] for name, facts in client.info("commandstats").items()}
    # Question and end are a script each, an answer is a script of its node and a BRPOP of the asker.
    assert calls["cmdstat_evalsha"] == 2 + 3
    assert calls["cmdstat_brpop"] == 3
    assert "cmdstat_eval" not in calls
    for task in serving:
        task.cancel()
    await asyncio.wait(serving)


@pytest.mark.parametrize(
    ("prefix", "patterns"), [("x-{db}.", False), (False, True), (True, False)], ids=["own", "none", "usual"]
)
async def test_channels_of_another_name_are_celerys(
    own_redis: RedisServer, prefix: str | bool, patterns: bool
) -> None:
    """Celery: ``fanout_prefix`` and ``fanout_patterns`` of ``broker_transport_options``."""
    options = f"fanout_prefix={str(prefix).lower()}&fanout_patterns={str(patterns).lower()}"
    async with Celeriac("shop", f"{own_redis.url(4)}?{options}", "disabled://") as app:
        fanout = app.connections().broker.fanout
        assert fanout is not None
        beats = Binding(exchange=Exchange("celeryev", by_key=True), key="worker.heartbeat")
        others = Binding(exchange=Exchange("celeryev", by_key=True), key="task.#")
        async with app.worker(name="ours@here"), fanout.listen([beats]) as heard, fanout.listen([others]):
            with celery.Celery("client", broker=own_redis.url(4)) as client:
                client.conf.broker_transport_options = {"fanout_prefix": prefix, "fanout_patterns": patterns}

                def ask() -> object:
                    client.control.broadcast("heartbeat")
                    return client.control.ping(destination=["ours@here"], timeout=15)

                assert await asyncio.to_thread(ask) == [{"ours@here": {"ok": "pong"}}]
                message = await asyncio.wait_for(anext(heard), 60)
                assert isinstance(message, Envelope)
                assert message.routing_key == "worker.heartbeat"
            with own_redis.client() as client:
                place = {"true": "/4.", "false": ""}.get(str(prefix).lower(), "x-4.")
                assert f"{place}celery.pidbox".encode() in client.pubsub_channels()


def test_an_option_of_channels_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="fanout_patterns='perhaps' is not true or false"):
        parse_redis_url("redis://localhost?fanout_patterns=perhaps")
