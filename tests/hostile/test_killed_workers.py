"""Texts that are no message, taken from a queue by a worker that then dies: the next one buries them and works on."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import amqp
from tests.hostile.check import make_app, outlive
from tests.hostile.texts import TEXTS
from tests.servers import PostgresServer, RabbitServer, RedisServer


async def test_redis(redis_server: RedisServer, unique: Callable[[str], str]):
    queue, prefix = unique("queue"), unique("prefix") + ":"
    url = f"{redis_server.url()}?global_keyprefix={prefix}"
    with redis_server.client() as client:
        client.lpush(prefix + queue, *TEXTS.values())
        await outlive(make_app(url, queue, url), url, queue, len(TEXTS))
        assert client.hlen(prefix + "unacked") == 0


async def test_sqlite(tmp_path: Path, queue: str):
    url = f"sqlite:///{tmp_path}/hostile.db"
    app = make_app(url, queue)
    async with app:
        await app.connections().broker.depth(queue)  # makes the tables
    with closing(sqlite3.connect(tmp_path / "hostile.db")) as file:
        insert = "INSERT INTO celeriac_message (queue, priority, frame) VALUES (?, 0, ?)"
        file.executemany(insert, [(queue, text) for text in TEXTS.values()])
        file.commit()
    await outlive(make_app(url, queue), url, queue, len(TEXTS))


async def test_postgres(postgres_server: PostgresServer, postgres_schema: str, queue: str):
    url = postgres_server.url(postgres_schema)
    async with make_app(url, queue) as app:
        await app.connections().broker.depth(queue)  # makes the tables
    with postgres_server.client(postgres_schema) as rows:
        insert = "INSERT INTO celeriac_message (queue, priority, frame) VALUES (%s, 0, %s)"
        for text in TEXTS.values():
            rows.execute(insert, [queue, text])
    await outlive(make_app(url, queue), url, queue, len(TEXTS))


async def test_rabbitmq(rabbit_server: RabbitServer, queue: str):
    with closing(rabbit_server.client()) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        for text in TEXTS.values():
            properties = {"content_type": "application/json", "content_encoding": "utf-8"}
            channel.basic_publish_confirm(
                amqp.Message(text, application_headers={"task": "nosuch", "id": "x"}, **properties), "", queue
            )
    await outlive(make_app(rabbit_server.url(), queue), rabbit_server.url(), queue, len(TEXTS))
