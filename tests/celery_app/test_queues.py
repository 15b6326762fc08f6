"""Queues that a Celery app declares in a way of its own, and those of single workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.utils.nodenames import worker_direct
from kombu import Exchange, Queue

from celeriac.celery_app.queues import declare
from tests.celery_app.conftest import ROOT, START, TIMEOUT, StartShop
from tests.celery_connections import disconnect
from tests.servers import LoggedProcess, RedisServer

REQUEST = "tests.celery_app.shop.request"


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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_each_worker_has_a_queue_of_its_own_where_the_app_says_so(
    kind: str, request: pytest.FixtureRequest, redis_server: RedisServer, start_shop: StartShop
) -> None:
    """The setting ``worker_direct``: by exchange and key, or by a queue that the sender declares."""
    broker = request.getfixturevalue("rabbit_server") if kind == "rabbitmq" else redis_server
    urls = {"broker": broker.url(), "backend": redis_server.url()}
    client = Celery("sender", set_as_current=False, **urls)
    client.conf.task_default_queue = f"shared-{uuid4()}"
    nodes = [f"{name}-{uuid4()}@here" for name in ("first", "second")]
    variables = {"SHOP_QUEUE": client.conf.task_default_queue, "SHOP_DIRECT": "1"}
    for node in nodes:
        start_shop("-P", "threads", "-c", "1", "-n", node, **urls, **variables)
    asked = []
    for node in nodes:
        own = worker_direct(node)
        asked += [
            (client.send_task(REQUEST, exchange=own.exchange.name, routing_key=node), node, own.name),
            (client.send_task(REQUEST, queue=own), node, own.name),
        ]
    shared = client.send_task(REQUEST).get(timeout=TIMEOUT)
    for result, node, queue in asked:
        seen = result.get(timeout=TIMEOUT)
        assert (seen["hostname"], seen["delivery_info"]["routing_key"]) == (node, queue)
    assert shared["hostname"] in nodes
    assert shared["delivery_info"]["routing_key"] == client.conf.task_default_queue
    disconnect(client)


@pytest.fixture
def own_queues(tmp_path: Path, redis_server: RedisServer) -> Iterator[tuple[Celery, list[str]]]:
    """An app with two queues in ``task_queues``, and one more for each worker by ``celeryd_after_setup``."""
    names = [f"{name}-{uuid4()}" for name in ("first", "second")]
    text = f"""
        from celery import Celery, signals
        from kombu import Queue
        app = Celery("queued", broker={redis_server.url()!r}, backend={redis_server.url()!r}, set_as_current=False)
        app.conf.update(task_queues=[Queue(name) for name in {names}], task_default_queue={names[0]!r})
        @app.task(bind=True)
        def where(self):
            return self.request.delivery_info["routing_key"]
        @signals.celeryd_after_setup.connect
        def take(sender, instance, **facts):
            instance.app.amqp.queues.select_add(f"{{sender}}.dq")
            instance.app.amqp.queues.deselect("not-for-this-worker")
        """
    (tmp_path / "queued.py").write_text(dedent(text))
    client = Celery("sender", broker=redis_server.url(), backend=redis_server.url(), set_as_current=False)
    yield client, names
    disconnect(client)


@pytest.mark.parametrize("named", [False, True], ids=["as the app says", "by the command line"])
def test_a_worker_takes_from_the_queues_of_task_queues(
    own_queues: tuple[Celery, list[str]], tmp_path: Path, named: bool
) -> None:
    """From all of them without ``-Q``; and from what a receiver adds, which Celery's documentation shows."""
    client, names = own_queues
    node = f"{uuid4()}@here"
    options = ["-Q", f"{names[1]},not-for-this-worker"] if named else []
    command = [sys.executable, "-m", "celeriac", "worker", "-A", "queued", "-P", "threads", "-n", node]
    worker = LoggedProcess([*command, *options], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    worker.wait_for(" ready", timeout=START)
    taken = [names[1], f"{node}.dq"] if named else [*names, f"{node}.dq"]
    for queue in taken:
        assert client.send_task("queued.where", queue=queue).get(timeout=TIMEOUT) == queue
    (answer,) = client.control.inspect([node]).active_queues().values()
    assert [queue["name"] for queue in answer] == taken
    worker.stop()
