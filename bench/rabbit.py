"""The same contest on a private RabbitMQ: tasks in its queue, results by ``rpc://`` in a queue read afterwards."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from tests.servers import RabbitServer

import amqp
from bench.ground import QUEUE, STALLED, Watch
from bench.workers import Contender, Running, WorkerFailed, run_client


class RabbitGround:
    """A RabbitMQ node for tasks and results, known to workers and clients by ``env``.

    Every worker gets messages of one shape, which a real Celery client wrote.
    """

    def __init__(self) -> None:
        self._server = RabbitServer()
        self._mold: amqp.Message | None = None
        self._replies = ""
        self.port = self._server.port
        self.env: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        self._server.start()
        try:
            self._connection = self._server.client()
            self._channel: Any = self._connection.channel()
        except BaseException:
            self._server.close()
            raise
        self.env = {"CELERY_BROKER_URL": self._server.url(), "CELERY_RESULT_BACKEND": "rpc://"}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()
        self._server.close()

    def version(self) -> str:
        """The server's version."""
        return str(self._connection.server_properties["version"])

    def clear(self) -> None:
        """Empty the queue and take another one for results; only while no worker runs."""
        self._channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        self._channel.queue_purge(QUEUE)
        if self._replies:
            self._channel.queue_delete(self._replies)
        self._replies = str(uuid.uuid4())
        self.env = {**self.env, "BENCH_QUEUE": QUEUE, "BENCH_REPLIES": self._replies}
        self._channel.queue_declare(self._replies, durable=False, auto_delete=False)

    def fill(self, count: int) -> list[str]:
        """Put that many messages into the queue and return their ids."""
        mold = self._mold = self._mold or self._original()
        properties = {**mold.properties, "reply_to": self._replies}
        original, headers = mold.headers["id"], json.dumps(properties.pop("application_headers"))
        ids = [str(uuid.uuid4()) for _ in range(count)]
        for own in ids:
            message = amqp.Message(
                mold.body,
                application_headers=json.loads(headers.replace(original, own)),
                **properties | {"correlation_id": own},
            )
            self._channel.basic_publish(message, "", QUEUE)
        self._wait_for(lambda: self._count(QUEUE) == count, f"{count} messages in the queue")
        return ids

    def done(self) -> int:
        """How many results there are."""
        return self._count(self._replies)

    def warm_up(self, worker: Running) -> None:
        """Return when the worker has run something, so its start is over."""
        before = self.done()
        self.fill(1)
        watch = Watch(worker)
        while (done := self.done()) == before:
            watch.saw(done)
            time.sleep(0.01)

    def check(self, worker: Running, ids: list[str], value: Any) -> None:
        """Raise ``WorkerFailed`` unless every task has ended well, once."""
        results = {}
        for message in self._take_all(self._replies):
            record = json.loads(message.body)
            results[record["task_id"]] = record["status"], record["result"]
        wrong = [own for own in ids if results.get(own) != ("SUCCESS", value)]
        if wrong or len(results) != len(ids):
            raise worker.failure(f"left {len(wrong)} of {len(ids)} tasks without the right result")

    def check_empty(self) -> None:
        """Raise ``WorkerFailed`` when a worker that has ended left messages, which are back in the queue then."""
        if left := self._count(QUEUE):
            raise WorkerFailed(f"{left} messages were left behind")

    def check_sent(self, count: int) -> None:
        """Raise ``WorkerFailed`` unless that many messages with ids of their own are in the queue."""
        messages = self._take_all(QUEUE)
        ids = {message.headers["id"] for message in messages}
        if len(ids) != count or len(messages) != count:
            raise WorkerFailed(
                f"{count} messages were sent; in the queue are {len(messages)}, with {len(ids)} ids"
            )

    def _original(self) -> amqp.Message:
        run_client("celery", "original", "bench.tasks.add", "[2, 3]", env=self.env)
        self._wait_for(lambda: self._count(QUEUE) == 1, "the client's message")
        return self._channel.basic_get(QUEUE, no_ack=True)

    def _count(self, queue: str) -> int:
        return int(self._channel.queue_declare(queue, passive=True).message_count)

    def _take_all(self, queue: str) -> list[amqp.Message]:
        count, taken = self._count(queue), list[amqp.Message]()
        tag = self._channel.basic_consume(queue, no_ack=True, callback=taken.append)
        while len(taken) < count:
            self._connection.drain_events(timeout=STALLED)
        self._channel.basic_cancel(tag)
        return taken

    def _wait_for(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.perf_counter() + STALLED
        while not holds():
            if time.perf_counter() > deadline:
                raise WorkerFailed(f"RabbitMQ has not got {what} within {STALLED:.0f} s")
            time.sleep(0.02)


@contextmanager
def standing(contender: Contender) -> Iterator[tuple[RabbitGround, Running]]:
    """A node of its own for a worker that has started and is idle."""
    with RabbitGround() as ground:
        ground.clear()
        with contender.running(ground.env) as worker:
            ground.warm_up(worker)
            yield ground, worker
