"""The servers that a chaos run can take place on: what can go wrong with each, and what is left on it afterwards."""

import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Protocol, Self

import msgspec
import psycopg

from tests.chaos.plan import QUEUE
from tests.servers import PostgresServer, RabbitServer, RedisServer

EXPIRING_KEYS = ("celery-task-meta-", "celeriac.once.")
KNOWN_KEYS = ("_kombu.binding", "celeriac.revoked", "unacked_mutex", *EXPIRING_KEYS)
ANSWERS = ".reply.celery.pidbox"
"""How the key ends that has the answers for a worker that asked its neighbours, and was killed before they came."""

NO_END = -1
"""What Redis answers for the seconds that a key has left; -2 is for one that has just ended."""

COMMAND_TIMEOUT = 30

LEDGER = "celeriac.ledger"
"""Where workers on RabbitMQ note what they hold, for each other; its notes expire."""

_CUT = """
Ours = [Pid || [{pid, Pid}, {client_properties, About}] <-
            rabbit_networking:connection_info_all([pid, client_properties]),
        lists:keyfind(<<"product">>, 1, About) =:= {<<"product">>, longstr, <<"celeriac">>}],
{Chosen, _} = lists:split((length(Ours) + 1) div 2,
    [Pid || {_, Pid} <- lists:sort([{erlang:phash2({Pid, %d}), Pid} || Pid <- Ours])]),
[exit(Pid, kill) || Pid <- Chosen].
"""
"""Erlang that ends the processes of half of the connections of celeriac's clients and workers: no frame tells of it."""


class Place(Protocol):
    """One server.

    :ivar forgets: whether a kill may take back what was answered.
    :ivar has_celery: whether Celery's workers and clients can use it.
    :ivar holds_by_line: whether it hands out again at once what a connection held that was cut.
    """

    holds_by_line: bool
    forgets: bool
    has_celery: bool

    @property
    def url(self) -> str: ...

    @property
    def results(self) -> str:
        """Where results are: the server itself, unless it has no place for them."""
        ...

    def start(self) -> None: ...

    def kill(self) -> None:
        """End it without warning; its data outlives that."""
        ...

    def cut(self, dice: random.Random) -> None:
        """Cut half of celeriac's connections."""
        ...

    def hang(self, seconds: float) -> None:
        """Let nobody's calls get on for so long."""
        ...

    def wait_for_signs_of_life(self) -> None:
        """Return when every worker that holds messages is connected."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Count the messages it still has, by what they wait for."""
        ...

    def left(self) -> Iterator[str]:
        """Return every message, and every key or row, that should not be there any more."""
        ...

    def states(self, ids: Sequence[str]) -> Sequence[str]:
        """Return the state of each task's result."""
        ...


class RedisPlace:
    """A Redis that writes each command to its file."""

    holds_by_line = False
    forgets = True
    has_celery = True

    def __init__(self) -> None:
        self._server = RedisServer(durable=True, arguments=["--enable-debug-command", "local"])

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return self._server.url()

    @property
    def results(self) -> str:
        return self.url

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.kill()

    def cut(self, dice: random.Random) -> None:
        with closing(self._server.client()) as client:
            ours = [entry["id"] for entry in client.client_list() if entry["name"] == "celeriac"]
            for number in dice.sample(ours, k=(len(ours) + 1) // 2):
                client.execute_command("CLIENT", "KILL", "ID", number)

    def hang(self, seconds: float) -> None:
        with closing(self._server.client()) as client:
            client.execute_command("DEBUG", "SLEEP", seconds)

    def wait_for_signs_of_life(self) -> None:
        """At once: leases are renewed by a process of their own."""

    def counts(self) -> Mapping[str, int]:
        with closing(self._server.client()) as client:
            lists = [key for key in client.keys(f"{QUEUE}*") if client.type(key) == b"list"]
            counts = {
                "waiting": sum(client.llen(key) for key in lists),
                "unacked": client.hlen("unacked"),
                "unacked_index": client.zcard("unacked_index"),
                "leases": client.zcard("celeriac.leases"),
                "due": client.zcard("celeriac.due"),
                "dead": client.hlen("celeriac.dead"),
            }
        return {name: count for name, count in counts.items() if count}

    def left(self) -> Iterator[str]:
        for name, count in self.counts().items():
            yield f"left in the broker: {count} {name}"
        with closing(self._server.client()) as client:
            for letter in client.hvals("celeriac.dead"):
                yield f"dead: {letter.decode(errors='replace')}"
            for key in client.scan_iter(count=1000):
                name = key.decode()
                expires = name.startswith(EXPIRING_KEYS) or name.endswith(ANSWERS)
                if not expires and not name.startswith(KNOWN_KEYS):
                    yield f"left in the broker: key {name}"
                elif expires and client.ttl(key) == NO_END:
                    yield f"left in the broker: {name} has no end"

    def states(self, ids: Sequence[str]) -> Sequence[str]:
        return _states_on(self._server, ids)


class RabbitPlace:
    """A RabbitMQ that has on disk what it confirmed, and a Redis for results, which nothing happens to."""

    holds_by_line = True
    forgets = True
    has_celery = True

    def __init__(self) -> None:
        self._server = RabbitServer()
        self._redis = RedisServer()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._redis)
        self._stack.enter_context(self._server)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return self._server.url()

    @property
    def results(self) -> str:
        return self._redis.url()

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.kill()

    def cut(self, dice: random.Random) -> None:
        self._server.control("eval", _CUT % dice.getrandbits(32))

    def hang(self, seconds: float) -> None:
        self._server.pause()
        time.sleep(seconds)
        self._server.resume()

    def wait_for_signs_of_life(self) -> None:
        """At once: a connection is the sign."""

    def counts(self) -> Mapping[str, int]:
        rows = self._server.control("list_queues", "name", "messages").splitlines()[1:]
        counts = {name: int(count) for name, count in (row.split("\t") for row in rows) if name != LEDGER}
        return {name: count for name, count in counts.items() if count}

    def left(self) -> Iterator[str]:
        for queue, count in self.counts().items():
            yield f"left in the broker: {count} in {queue}"

    def states(self, ids: Sequence[str]) -> Sequence[str]:
        return _states_on(self._redis, ids)


class PostgresPlace:
    """A PostgreSQL that has on disk what it answered."""

    holds_by_line = False
    forgets = False
    has_celery = False

    def __init__(self, server: PostgresServer | None = None) -> None:
        self.server = server or PostgresServer(durable=True)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.server)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return self.server.url()

    @property
    def results(self) -> str:
        return self.url

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        # Its immediate shutdown: all ends at once, and the next start recovers from the log.
        self.server.process.send_signal(signal.SIGQUIT)
        self.server.process.wait(timeout=COMMAND_TIMEOUT)

    def cut(self, dice: random.Random) -> None:
        with self.server.client() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'celeriac%'"
            )
            ours = [pid for (pid,) in rows]
            for pid in dice.sample(ours, k=(len(ours) + 1) // 2):
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    def cut_all(self) -> int:
        """Cut every connection of celeriac's; return how many there were."""
        with self.server.client() as connection:
            return connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'celeriac%'"
            ).rowcount

    def hang(self, seconds: float) -> None:
        with self.server.client() as connection, connection.transaction():
            connection.execute("LOCK TABLE celeriac_message IN ACCESS EXCLUSIVE MODE")
            connection.execute("SELECT pg_sleep(%s)", (seconds,))

    def wait_for_signs_of_life(self) -> None:
        unlocked = (
            "SELECT count(*) FROM celeriac_owner WHERE id NOT IN ("
            "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted)"
        )
        with self.server.client() as connection:
            while connection.execute(unlocked).fetchone()[0]:
                time.sleep(0.05)

    def counts(self) -> Mapping[str, int]:
        counts = {
            "waiting": "SELECT count(*) FROM celeriac_message WHERE owner IS NULL AND due_at IS NULL",
            "held": "SELECT count(*) FROM celeriac_message WHERE owner IS NOT NULL",
            "due": "SELECT count(*) FROM celeriac_message WHERE due_at IS NOT NULL",
            "dead": "SELECT count(*) FROM celeriac_dead",
        }
        with self.server.client() as connection:
            found = {name: connection.execute(query).fetchone()[0] for name, query in counts.items()}
        return {name: count for name, count in found.items() if count}

    def left(self) -> Iterator[str]:
        for name, count in self.counts().items():
            yield f"left in the broker: {count} {name}"
        with self.server.client() as connection:
            for (reason,) in connection.execute("SELECT reason FROM celeriac_dead"):
                yield f"dead: {reason}"
            for (number,) in connection.execute("SELECT id FROM celeriac_owner"):
                try:
                    with connection.transaction():
                        connection.execute("DELETE FROM celeriac_owner WHERE id = %s", (number,))
                except psycopg.Error as error:
                    yield f"left in the broker: owner {number} {error}"

    def states(self, ids: Sequence[str]) -> Sequence[str]:
        with self.server.client() as connection:
            rows = connection.execute(
                "SELECT task_id, status FROM celery_taskmeta WHERE task_id = ANY(%s)", (list(ids),)
            )
            found = dict(rows.fetchall())
        return [found.get(task_id, "missing") for task_id in ids]


def _states_on(server: RedisServer, ids: Sequence[str]) -> Sequence[str]:
    with closing(server.client()) as client:
        found = client.mget([f"celery-task-meta-{task_id}" for task_id in ids])
    return [msgspec.json.decode(meta)["status"] if meta else "missing" for meta in found]
