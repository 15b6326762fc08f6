"""Tasks and results in one PostgreSQL, a private one that writes to disk before it answers."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from tests.servers import PostgresServer
from tests.servers.redis import HOST

from bench.ground import Watch
from bench.measures.consume import LEFT_OUT, POLL
from bench.plan import Plan
from bench.rows import Row, at_least
from bench.workers import Running, celeriac, run_client

RESULTS = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"


def measure(plan: Plan) -> list[Row]:
    """Tasks a second, between 5 % and all of the results; and messages sent a second, ten at a time."""
    sizes = plan.sizes
    with PostgresServer(durable=True) as server:
        consumed = plan.in_turns("postgres", {"celeriac": lambda: consume(server, sizes.postgres)})
        sent = plan.in_turns("postgres, send", {"celeriac": lambda: send(server, sizes.postgres_send)})
    return [
        Row("PostgreSQL: consume async tasks", "tasks/s", consumed["celeriac"], goal=at_least(10_000)),
        Row("PostgreSQL: send, 10 at a time", "msg/s", sent["celeriac"]),
    ]


def environment(server: PostgresServer, database: str) -> Mapping[str, str]:
    """Where broker and results are."""
    url = f"postgresql://postgres@{HOST}:{server.port}/{database}"
    return {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}


@contextmanager
def database(server: PostgresServer) -> Iterator[str]:
    """A database that holds nothing."""
    name = f"bench_{uuid4().hex}"
    with server.client() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield name
    with server.client() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def consume(server: PostgresServer, count: int) -> float:
    """Fill a new database, start the worker, measure, stop."""
    with database(server) as name:
        env = environment(server, name)
        run_client("celeriac", "fill", count, env=env)
        with celeriac().running(env) as worker:
            return watch(f"postgresql://postgres@{HOST}:{server.port}/{name}", worker, count)


def watch(url: str, worker: Running, count: int) -> float:
    """Measure a worker that is starting on a full queue."""
    keeps_going = Watch(worker)
    with psycopg.connect(url, autocommit=True) as reader:
        while (first := done(reader)) < count * LEFT_OUT:
            keeps_going.saw(first)
            time.sleep(POLL)
        start = time.perf_counter()
        while (now := done(reader)) < count:
            keeps_going.saw(now)
            time.sleep(POLL)
    return (count - first) / (time.perf_counter() - start)


def done(reader: Any) -> int:
    """How many results there are."""
    try:
        return int(reader.execute(RESULTS).fetchone()[0])
    except psycopg.errors.UndefinedTable:
        return 0  # the worker has not made its tables yet


def send(server: PostgresServer, count: int) -> float:
    """Messages a second that one program sends from ten coroutines."""
    with database(server) as name:
        done = run_client("celeriac", "send", count, 10, env=environment(server, name))
        return float(json.loads(done)["rate"])
