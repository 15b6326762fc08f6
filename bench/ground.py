"""Where a contest takes place: a private Redis, the messages in it, and the check that every one was dealt with.

Rules: every worker gets messages of one shape, which a real Celery client wrote; after each run every result is there
and right, and nothing is left in the queue or with the worker.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from tests.servers import RedisServer

from bench.commands import commands_of
from bench.workers import Contender, Running, WorkerFailed, run_client

QUEUE = "celery"
STALLED = 20.0
"""Seconds without a new result after which a worker is given up."""
CHUNK = 1000


class Molds:
    """Messages that Celery wrote, to be copied with ids of their own."""

    def __init__(self) -> None:
        self._originals: dict[tuple[str, str], tuple[str, str, str]] = {}

    def cast(self, task: str, args: Sequence[Any], ids: Sequence[str]) -> list[str]:
        """Return one message for each id."""
        key = (task, json.dumps(args))
        if key not in self._originals:
            self._originals[key] = _original(*key)
        message, task_id, tag = self._originals[key]
        return [message.replace(task_id, own).replace(tag, str(uuid.uuid4())) for own in ids]


class Ground:
    """A Redis server for tasks (database 0) and results (database 1), known to workers and clients by ``env``."""

    def __init__(self, molds: Molds) -> None:
        self._molds = molds
        self._server = RedisServer()
        self.env: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        self._server.start()
        self._tasks, self._results = self._server.client(0), self._server.client(1)
        self.env = {"CELERY_BROKER_URL": self._server.url(0), "CELERY_RESULT_BACKEND": self._server.url(1)}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.close()

    def version(self) -> str:
        """The server's version."""
        return str(self._tasks.info("server")["redis_version"])

    @property
    def port(self) -> int:
        """The server's port."""
        return self._server.port

    def clear(self) -> None:
        """Empty everything; only while no worker runs."""
        self._tasks.flushall()

    def fill(self, task: str, args: Sequence[Any], count: int) -> list[str]:
        """Put that many messages into the queue and return their ids."""
        ids, messages = self.cast(task, args, count)
        self.push(messages)
        return ids

    def cast(self, task: str, args: Sequence[Any], count: int) -> tuple[list[str], list[str]]:
        """Make that many messages, to be pushed when the clock runs; return their ids and them."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        return ids, self._molds.cast(task, args, ids)

    def push(self, messages: Sequence[str]) -> None:
        """Put messages into the queue, in few round trips."""
        with self._tasks.pipeline(transaction=False) as pipeline:
            for start in range(0, len(messages), CHUNK):
                pipeline.lpush(QUEUE, *messages[start : start + CHUNK])
            pipeline.execute()

    def newest(self) -> str:
        """Take the newest message out of the queue."""
        message = self._tasks.lpop(QUEUE)
        assert isinstance(message, bytes), "the client sent nothing"
        return message.decode()

    def cpu_seconds(self) -> float:
        """What the server has used so far, in user and system mode."""
        used = self._tasks.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def done(self) -> int:
        """How many results there are."""
        return int(self._results.dbsize())

    def commands(self) -> Counter[str]:
        """How often the server has run each command."""
        return commands_of(self._tasks)

    def note_slow_commands(self) -> None:
        """Let the server note, from now on, what takes it longer than a millisecond."""
        self._tasks.config_set("slowlog-log-slower-than", 1000)
        self._tasks.slowlog_reset()

    def slowest_command(self) -> float:
        """Return the seconds that the longest command took which the server has noted."""
        return max((entry["duration"] / 1e6 for entry in self._tasks.slowlog_get(128)), default=0.0)

    def requests(self) -> int:
        """How often the server has read from a client; small commands that are sent alone are read one by one."""
        return int(self._tasks.info("stats")["total_reads_processed"])

    def wait_for(self, worker: Running, count: int, poll: float = 0.005) -> float:
        """Return the time by ``time.perf_counter`` at which that many results were there."""
        watch = Watch(worker)
        while (done := self.done()) < count:
            watch.saw(done)
            time.sleep(poll)
        return time.perf_counter()

    def warm_up(self, worker: Running) -> None:
        """Return when the worker has run something, so its start is over."""
        before = self.done()
        self.fill("bench.tasks.add", [2, 3], 1)
        self.wait_for(worker, before + 1)

    def check(self, worker: Running, ids: Sequence[str], value: Any) -> None:
        """Raise ``WorkerFailed`` unless every task has ended well and nothing is left over."""
        self._wait_until_drained(worker)
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            for task_id, raw in zip(
                chunk, self._results.mget([f"celery-task-meta-{own}" for own in chunk]), strict=True
            ):
                record = json.loads(raw) if raw else {"status": "no result"}
                if record["status"] != "SUCCESS" or record["result"] != value:
                    raise worker.failure(f"left {task_id} with {record}")

    def check_sent(self, count: int) -> None:
        """Raise ``WorkerFailed`` unless that many messages with ids of their own are in the queue."""
        ids = {json.loads(message)["headers"]["id"] for message in self._tasks.lrange(QUEUE, 0, -1)}
        length = self._tasks.llen(QUEUE)
        if len(ids) != count or length != count:
            raise WorkerFailed(f"{count} messages were sent; in the queue are {length}, with {len(ids)} ids")

    def _wait_until_drained(self, worker: Running) -> None:
        deadline = time.perf_counter() + STALLED
        while left := self._left_over():
            if time.perf_counter() > deadline:
                raise worker.failure(f"left behind {left}")
            time.sleep(0.02)

    def _left_over(self) -> dict[str, int]:
        left = {
            QUEUE: self._tasks.llen(QUEUE),
            "unacked": self._tasks.hlen("unacked"),
            "unacked_index": self._tasks.zcard("unacked_index"),
        }
        return {name: size for name, size in left.items() if size}


class Watch:
    """Gives a worker up that has stopped making progress."""

    def __init__(self, worker: Running) -> None:
        self._worker = worker
        self._last = -1
        self._since = time.perf_counter()

    def saw(self, done: int) -> None:
        """Take note of how far it is. Raises ``WorkerFailed`` when it has ended, or done nothing for long."""
        now = time.perf_counter()
        if done != self._last:
            self._last, self._since = done, now
        elif now - self._since > STALLED:
            raise self._worker.failure(f"has {done} results and made no new one for {STALLED:.0f} s")
        self._worker.require_alive()


@contextmanager
def standing(
    molds: Molds, contender: Contender, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[Ground, Running]]:
    """A ground of its own for a worker that has started, with these variables, and is idle."""
    with Ground(molds) as ground, contender.running({**ground.env, **(variables or {})}) as worker:
        ground.warm_up(worker)
        yield ground, worker


def _original(task: str, args: str) -> tuple[str, str, str]:
    # On a server of its own, so that no worker takes it first.
    with Ground(Molds()) as apart:
        run_client("celery", "original", task, args, env=apart.env)
        message = apart.newest()
    frame = json.loads(message)
    return message, frame["headers"]["id"], frame["properties"]["delivery_tag"]
