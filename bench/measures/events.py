"""What events cost: the consume rate with ``-E``, as a part of the rate without, when nobody, one, or Flower listens.

Up to ``event_rate_limit`` tasks a second a worker tells of all, of more a share, so that a full queue is told in part.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial

from tests.servers import LoggedProcess
from tests.servers.redis import free_port

from bench.ground import Ground
from bench.measures.consume import Consumed, consume
from bench.plan import Plan
from bench.rows import Row, at_least
from bench.workers import ROOT, celeriac

Listening = Callable[[], AbstractContextManager[None]]


def measure(plan: Plan) -> list[Row]:
    """Interleaved with runs that tell nothing; each is compared with the run of its own round."""
    with Ground(plan.molds) as ground:
        count = plan.sizes.consume // 2
        listening: dict[str, tuple[Listening, float]] = {
            "nobody listens": (nullcontext, 98),
            "one listener": (partial(_listener, ground.port), 90),
            "Flower": (partial(_flower, ground), 90),
        }
        turns = {"without": partial(consume, ground, celeriac(), "bench.tasks.add", count)}
        for name, (listens, _) in listening.items():
            turns[name] = partial(_consume_heard, ground, count, listens)
        runs = plan.in_turns("events", turns)
    without = runs["without"]
    rows = []
    for name, (_, goal) in listening.items():
        pairs = list(zip(runs[name], without, strict=True))
        rates = [100 * heard.rate / silent.rate for heard, silent in pairs]
        rows.append(
            Row(
                f"consume with -E, {name}",
                "% of without",
                rates,
                goal=at_least(goal),
                details={"cpu_us": [[heard.cpu, silent.cpu] for heard, silent in pairs]},
            )
        )
    return rows


def _consume_heard(ground: Ground, count: int, listens: Listening) -> Consumed:
    with listens():
        return consume(ground, celeriac("-E"), "bench.tasks.add", count)


@contextmanager
def _listener(port: int) -> Iterator[None]:
    """Subscribe to all events, and read them as fast as they come."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"PSUBSCRIBE /0.celeryev/*\r\n")
        connection.recv(64)
        reading = threading.Thread(target=_read, args=[connection], daemon=True)
        reading.start()
        yield
        connection.shutdown(socket.SHUT_RDWR)
        reading.join(10)


def _read(connection: socket.socket) -> None:
    buffer = bytearray(1024 * 1024)
    with suppress(OSError):
        while connection.recv_into(buffer):
            pass


@contextmanager
def _flower(ground: Ground) -> Iterator[None]:
    """Run Flower beside, on the same cores."""
    command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "bench.celery_tasks", "flower"]
    flower = LoggedProcess([*command, f"--port={free_port()}"], env={**os.environ, **ground.env}, cwd=ROOT)
    try:
        flower.wait_for("Connected to", timeout=60)
        yield
    finally:
        flower.kill()
