"""Whatever is said to all who listen, on any broker: they hear, and answer, what is sound."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

import amqp
from celeriac import Celeriac
from celeriac.contracts.fanout import Exchange
from celeriac.wire.envelope import Envelope
from celeriac.worker.panel import ALIASES, CONTROL, INSPECT
from tests.amqp.forging import Forger
from tests.hostile.check import runs
from tests.hostile.texts import TEXTS
from tests.hostile.values import VALUES
from tests.servers import PostgresServer, RabbitServer, RedisServer

NODE = "hostile@here"
PATIENCE = 60.0

Say = Callable[[str, bool, Sequence[bytes]], None]
"""Says texts that need not be messages to an exchange; also to one that goes by keys."""


class Place:
    """A broker, and how another writes to its exchanges."""

    def __init__(self, url: str, say: Say) -> None:
        self.url = url
        self.say = say


def on_redis(server: RedisServer) -> Place:
    def say(exchange: str, by_key: bool, texts: Sequence[bytes]) -> None:
        with server.client() as client:
            for text in texts:
                client.publish(f"/0.{exchange}{'/worker.x' if by_key else ''}", text)

    return Place(server.url(), say)


def on_rabbitmq(server: RabbitServer) -> Place:
    def say(exchange: str, by_key: bool, texts: Sequence[bytes]) -> None:
        with closing(server.client()) as connection:
            channel = connection.channel()
            for text in texts:
                channel.basic_publish_confirm(amqp.Message(text), exchange, "worker.x" if by_key else "")

    return Place(server.url(), say)


ROW = "INSERT INTO celeriac_broadcast (exchange, key, expires, frame) VALUES "


def on_sqlite(path: str) -> Place:
    def say(exchange: str, by_key: bool, texts: Sequence[bytes]) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            values: list[Any] = [*texts, "text", 7, 2.5, "\ud800".encode("utf-8", "surrogatepass")]
            file.executemany(ROW + "(?, 'worker.x', 9e999, ?)", [(exchange, value) for value in values])
            soon = "(?, CAST(? AS TEXT), strftime('%s', 'now') + 50, ?)"
            keys: list[Any] = [b"\xff", "worker.x", 5, 2.5]
            file.executemany(ROW + soon, [(exchange, key, value) for value in values for key in keys])
            file.execute(ROW + "(CAST(? AS BLOB), 'x', 'soon', 'x')", [exchange.encode() + b"\xff"])

    return Place(f"sqlite:///{path}", say)


def on_postgres(server: PostgresServer, schema: str) -> Place:
    def say(exchange: str, by_key: bool, texts: Sequence[bytes]) -> None:
        soon = "extract(epoch FROM now()) + 50"
        with server.client(schema) as rows:
            for text in texts:
                for expires in (soon, "'NaN'", "'Infinity'"):
                    rows.execute(ROW + f"(%s, 'worker.x', {expires}, %s)", [exchange, text])
            for (channel,) in rows.execute("SELECT channel FROM celeriac_sleeper").fetchall():
                rows.execute("SELECT pg_notify(%s, %s)", [channel, "[\x1b" * 100])

    return Place(server.url(schema), say)


@pytest.fixture(params=["redis", "rabbitmq", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    ask = request.getfixturevalue
    if request.param == "redis":
        return on_redis(ask("redis_server"))
    if request.param == "rabbitmq":
        return on_rabbitmq(ask("rabbit_server"))
    if request.param == "sqlite":
        return on_sqlite(f"{ask('tmp_path')}/said.db")
    return on_postgres(ask("postgres_server"), ask("postgres_schema"))


def make_app(url: str, unique: Callable[[str], str]) -> Celeriac:
    names = {name: unique(name) for name in ("control_exchange", "event_exchange", "default_queue")}
    app = Celeriac("said", url, "memory://", remote_control=True, **names)

    @app.task(name="ok")
    async def ok(number: int) -> int:
        return number

    return app


REVOKING = {"revoke", "terminate", "revoke_by_stamped_headers"}


def requests(*, shared: bool) -> list[Envelope]:
    """Requests with every value in the place of every part, and of every argument of every method.

    :param shared: none that keeps a revocation, which would be of other tests' tasks too.
    """
    found = []

    def add(body: str, headers: dict[str, Any] | None = None) -> None:
        kind = {"content_type": "application/json", "content_encoding": "utf-8"}
        found.append(Envelope(body=body.encode(), headers=headers or {}, **kind))

    names = ("method", "arguments", "destination", "pattern", "matcher", "ticket", "reply_to")
    for value in VALUES:
        for name in names:
            add(f'{{"method": "ping", "matcher": "pcre", "{name}": {value}}}')
        add(f'{{"method": "ping", "reply_to": {{"exchange": {value}, "routing_key": {value}}}}}')
    names = (
        "task_id",
        "ids",
        "n",
        "queue",
        "headers",
        "samples",
        "revoked",
        "from_node",
        "rate_limit",
        "safe",
    )
    methods = sorted({*INSPECT, *CONTROL, *ALIASES} - {"shutdown"} - (REVOKING if shared else set()))
    for number, value in enumerate(VALUES):
        for place, method in enumerate(methods):
            name = names[(number + place) % len(names)]
            add(f'{{"method": "{method}", "arguments": {{"{name}": {value}}}}}')
    for header in ("clock", "expires"):
        for plain in (-1, 2**62, 1e300, "x", True, None, [1], {"a": 1}):
            add('{"method": "ping"}', {header: plain})
    for pattern in ("(?x)((.+) +) +!", "a{99999999999999999999}", "(.*)(.*)(.*)(.|.)(.|.)!", "(", "\\"):
        add(json.dumps({"method": "ping", "matcher": "pcre", "pattern": pattern}))
    return found


def events() -> list[Envelope]:
    """Candidates and events with every value in the place of every field."""
    fields = ("type", "hostname", "timestamp", "id", "pid", "clock", "uuid")
    start = '{"type": "worker-elect", "hostname": "ghost@there", "timestamp": 1.5, "id": "forged"'
    bodies = [f'{start}, "{field}": {value}}}' for field in fields for value in VALUES]
    crowd = [
        {"type": "worker-elect", "hostname": f"g{n}", "id": f"e{n}", "timestamp": 1} for n in range(1000)
    ]
    return [
        Envelope(body=body.encode(), content_type="application/json", content_encoding="utf-8")
        for body in [*bodies, json.dumps(crowd)]
    ]


async def test_a_worker_and_a_monitor_hear_what_is_sound(
    place: Place, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(place.url, unique)
    control = Exchange(f"{app.settings.control_exchange}.pidbox")
    told = Exchange(app.settings.event_exchange, by_key=True)
    async with app, app.worker(name=NODE) as worker, app.events.listen() as heard:
        await worker.ready()
        fanout = app.connections().broker.fanout
        assert fanout is not None
        for exchange in (control, told):
            await asyncio.to_thread(place.say, exchange.name, exchange.by_key, list(TEXTS.values()))
        for message in requests(shared=place.url.startswith(("redis", "amqp"))):
            await fanout.publish(control, message)
        for message in events():
            await fanout.publish(told, message, "worker.elect")
        asked = await app.control.ask("ping", destination=[NODE], timeout=PATIENCE)
        assert asked.by_node == {NODE: {"ok": "pong"}}
        assert await runs(app)
        last = json.dumps({"type": "task-last", "hostname": "sound@here", "timestamp": 2.5}).encode()
        await fanout.publish(told, Envelope(body=last, content_type="application/json"), "task.last")
        async with asyncio.timeout(PATIENCE):
            async for event in heard:
                if event.type == "task-last":
                    break
    assert "dropped" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_headers_of_rabbitmq_that_nobody_decent_writes(
    rabbit_server: RabbitServer, unique: Callable[[str], str]
) -> None:
    async with Forger(rabbit_server.port, seed=20261129) as forger:
        app, asking = make_app(forger.url(), unique), make_app(rabbit_server.url(), unique)
        async with app, asking:
            exchange = app.settings.control_exchange
            worker = app.worker(name=NODE)
            async with worker, app.events.listen() as heard:
                await worker.ready()
                fanout = asking.connections().broker.fanout
                assert fanout is not None
                forger.forging = True
                for _ in range(150):
                    await fanout.publish(Exchange(f"{exchange}.pidbox"), Envelope(body=b'{"method": "ping"}'))
                    await fanout.publish(
                        Exchange(app.settings.event_exchange, by_key=True), Envelope(body=b"{}"), "x"
                    )
                while forger.forged < 300:  # noqa: ASYNC110 - nobody else knows
                    await asyncio.sleep(0.01)
                forger.forging = False
                asked = await app.control.ask("ping", destination=[NODE], timeout=PATIENCE)
                assert asked.by_node == {NODE: {"ok": "pong"}}
                assert heard.cuts == 0
        assert forger.accepted == 1
