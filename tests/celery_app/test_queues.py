"""Queues that a Celery app declares in a way of its own, on Redis."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from celery import Celery
from kombu import Exchange, Queue

from celeriac.celery_app.queues import declare
from tests.servers import RedisServer


def bindings(app: Celery, exchange: str) -> list[Any]:
    with app.connection() as connection:
        return [(found[0], found[2]) for found in connection.default_channel.get_table(exchange)]


def test_a_queue_with_an_exchange_and_keys_of_its_own(redis_server: RedisServer) -> None:
    name = f"own-{uuid4()}"
    app = Celery("owner", broker=redis_server.url(), set_as_current=False)
    topic = Queue(name, Exchange(f"{name}-topic", type="topic"), routing_key="order.#")
    app.conf.task_queues = [
        topic,
        Queue(f"{name}-plain", Exchange(f"{name}-plain"), routing_key=f"{name}-plain"),
    ]
    declare(app, [name, f"{name}-plain"])
    assert bindings(app, f"{name}-topic") == [("order.#", name)]
    assert bindings(app, f"{name}-plain") == []  # left to celeriac


def test_a_broker_that_is_away_is_only_told() -> None:
    app = Celery("owner", broker="redis://localhost:1", set_as_current=False)
    app.conf.task_queues = [Queue("own", Exchange("topic", type="topic"), routing_key="a.#")]
    declare(app, ["own"])
