"""The same contest on a private PostgreSQL that writes to disk before it answers: tasks and results in one database."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from uuid import uuid4

import psutil
import psycopg
from tests.servers import PostgresServer
from tests.servers.redis import HOST

from bench.ground import Watch
from bench.workers import Contender, Running, WorkerFailed, run_client

RESULTS = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"
RIGHT = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS' AND convert_from(result, 'UTF8') = '5'"
LEFT = "SELECT count(*) FROM celeriac_message"
NAMES_SESSIONS = "log_line_prefix=%d %a|"
"""A setting of the server, with which each line of its log begins with the database and the session's own name."""


class PostgresGround:
    """A database of its own for one turn, known to workers and clients by ``env``.

    :param ended: counts what is done; by default the results.
    """

    def __init__(self, server: PostgresServer, name: str, ended: str = RESULTS) -> None:
        self._server = server
        self._name = name
        self._ended = ended
        self.url = f"postgresql://postgres@{HOST}:{server.port}/{name}"
        self.env: Mapping[str, str] = {
            "CELERY_BROKER_URL": self.url,
            "CELERY_RESULT_BACKEND": self.url,
            "BENCH_POSTGRES": self.url,
        }
        self.celerys: Mapping[str, str] = {
            "CELERY_BROKER_URL": self.url.replace("postgresql", "sqla+postgresql+psycopg", 1),
            "CELERY_RESULT_BACKEND": self.url.replace("postgresql", "db+postgresql+psycopg", 1),
        }

    def __enter__(self) -> Self:
        self.connection: Any = psycopg.connect(self.url, autocommit=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.connection.close()

    def done(self) -> int:
        """How many tasks have ended."""
        try:
            return int(self.connection.execute(self._ended).fetchone()[0])
        except psycopg.errors.UndefinedTable:
            return 0  # the worker has not made its tables yet

    def count(self, query: str) -> int:
        """Return the number that a query finds."""
        return int(self.connection.execute(query).fetchone()[0])

    def log_statements(self) -> None:
        """Have the server log each statement of the sessions that begin from now on; it needs ``NAMES_SESSIONS``."""
        self.connection.execute(f"ALTER DATABASE {self._name} SET log_statement = 'all'")

    def statements(self) -> int:
        """How many statements celeriac's sessions have run in this database, of those that are logged."""
        of_ours = f"{self._name} celeriac "
        return sum(
            line.startswith(of_ours) and ("|LOG:  execute" in line or "|LOG:  statement" in line)
            for line in self._server.process.output.splitlines()
        )

    @property
    def port(self) -> int:
        """The server's port."""
        return self._server.port

    def server_seconds(self) -> float:
        """What the server's processes have used so far, those that have ended included; not for our looks."""
        top = psutil.Process(self._server.process.pid)
        own = top.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        looking = self.connection.info.backend_pid
        for child in top.children(recursive=True):
            if child.pid == looking:
                continue
            times = child.cpu_times()
            total += times.user + times.system
        return float(total)

    def check(self, worker: Running, count: int) -> None:
        """Raise ``WorkerFailed`` unless every task has its result, the right one, and no message is left."""
        watch = Watch(worker)
        while left := self.count(LEFT):
            watch.saw(-left)
            time.sleep(0.02)
        if (right := self.count(RIGHT)) != count:
            raise worker.failure(f"left {count - right} of {count} tasks without the right result")

    def check_sent(self, count: int) -> None:
        """Raise ``WorkerFailed`` unless that many messages with ids of their own are in the queue."""
        query = (
            "SELECT count(DISTINCT convert_from(frame, 'UTF8')::json->'headers'->>'id') FROM celeriac_message"
        )
        if self.count(query) != count or self.count(LEFT) != count:
            raise WorkerFailed(f"{count} messages were sent; {self.count(LEFT)} are in the queue")


@contextmanager
def ground(server: PostgresServer, ended: str = RESULTS) -> Iterator[PostgresGround]:
    """Have a database that holds nothing."""
    name = f"bench_{uuid4().hex}"
    with server.client() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with PostgresGround(server, name, ended) as made:
        yield made
    with server.client() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def standing(
    server: PostgresServer, contender: Contender, *, logs: bool = False
) -> Iterator[tuple[PostgresGround, Running]]:
    """Have a database for a worker that has started, has run something, and is idle.

    :param logs: have the server log its statements.
    """
    with ground(server) as place:
        if logs:
            place.log_statements()
        with contender.running(place.env) as worker:
            run_client("celeriac", "roundtrip", 1, env=place.env)
            yield place, worker


def told(module: str, *arguments: object, env: Mapping[str, str]) -> Any:
    """Return what a client program tells."""
    return json.loads(run_client(module, *arguments, env=env))
