"""Tasks and results in one PostgreSQL, beside Celery on two transports of SQLAlchemy, pgqueuer and procrastinate."""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tests.servers import PostgresServer

from bench.measures.consume import Consumed, watch
from bench.measures.roundtrip import percentile
from bench.plan import Plan
from bench.postgres import LEFT, NAMES_SESSIONS, PostgresGround, ground, standing, told
from bench.rows import Row, at_least, at_least_times, at_most
from bench.workers import CELERY, Contender, celeriac, run_client

_FEW, _MANY = 10, 200
"""Jobs that pgqueuer takes at once: by its default, and as it is fastest."""

PEERS: Mapping[str, tuple[str, int, str]] = {
    "pgqueuer": ("pgqueuer", _FEW, "pgqueuer"),
    "pgqueuer, large batches": ("pgqueuer", _MANY, "pgqueuer"),
    "procrastinate": ("procrastinate", 0, "procrastinate_jobs"),
}
"""The others' programs, how many jobs their workers take at once, and the table that a job is in until it has ended."""

WRITING = 3.0
SETTLING = 5.0
"""Seconds after its first task in which a worker may still be busy."""
PARKED = """
    INSERT INTO celeriac_message (queue, priority, due_at, frame)
    SELECT 'celery', 0, extract(epoch FROM clock_timestamp()) + 86400 + number / 100.0, repeat('x', 900)::bytea
    FROM generate_series(1, {}) AS series (number)"""


def measure(plan: Plan) -> list[Row]:
    """Consuming, sending, round trips, writers beside each other, and parked messages."""
    with PostgresServer(durable=True, settings=[NAMES_SESSIONS]) as server:
        with server.client() as connection:
            plan.machine.servers["PostgreSQL"] = connection.info.parameter_status("server_version").split()[0]
        return [
            *_consuming(plan, server),
            *_sending(plan, server),
            *_round_trips(plan, server),
            *_writing(plan, server),
            *_parked(plan, server),
            *_late(plan, server),
            *_idling(plan, server),
        ]


# --- consuming


def _consuming(plan: Plan, server: PostgresServer) -> list[Row]:
    sizes = plan.sizes
    turns = {
        "celery": partial(consume_by_celery, server, sizes.postgres_celery),
        "celeriac": partial(consume, server, sizes.postgres),
        "without results": partial(consume_without_results, server, sizes.postgres),
        "pgqueuer": partial(consume_by_peer, server, "pgqueuer", sizes.postgres),
        "pgqueuer, large batches": partial(
            consume_by_peer, server, "pgqueuer, large batches", sizes.postgres
        ),
        "procrastinate": partial(consume_by_peer, server, "procrastinate", sizes.postgres_celery),
    }
    runs = plan.in_turns("postgres", turns)
    rates = {name: [run.rate for run in found] for name, found in runs.items()}
    ours = runs["celeriac"]
    celerys = [run.cpu for run in runs["celery"]]
    return [
        Row("PostgreSQL: consume, results", "tasks/s", rates["celeriac"], goal=at_least(10_000)),
        Row(
            "PostgreSQL: consume, beside sqla+, db+",
            "tasks/s",
            rates["celeriac"],
            rates["celery"],
            at_least_times(20),
        ),
        Row("PostgreSQL: consume, ignore_result", "tasks/s", rates["without results"], goal=at_least(14_000)),
        Row(f"pgqueuer: consume, no results, {_FEW} a batch", "tasks/s", rates["pgqueuer"]),
        Row(f"pgqueuer: consume, no results, {_MANY} a batch", "tasks/s", rates["pgqueuer, large batches"]),
        Row("procrastinate: consume, no results", "tasks/s", rates["procrastinate"]),
        Row(
            "PostgreSQL: rate with results, of pgqueuer's without, by its default",
            "%",
            _shares(rates["celeriac"], rates["pgqueuer"]),
            goal=at_least(100),
        ),
        Row(
            f"PostgreSQL: rate with results, of pgqueuer's without, {_MANY} a batch",
            "%",
            _shares(rates["celeriac"], rates["pgqueuer, large batches"]),
        ),
        Row("worker CPU a task: PostgreSQL", "µs", [run.cpu for run in ours], celerys, less_is_better=True),
        Row(
            "server CPU a task: PostgreSQL",
            "µs",
            [run.server_cpu for run in ours],
            [run.server_cpu for run in runs["celery"]],
            at_most(30),
            less_is_better=True,
        ),
    ]


def _shares(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [100 * mine / its for mine, its in zip(ours, theirs, strict=True)]


def consume(server: PostgresServer, count: int) -> Consumed:
    """Fill a new database, start the worker, measure, check, stop."""
    with ground(server) as place:
        run_client("celeriac", "fill", count, env=place.env)
        with celeriac().running(place.env) as worker:
            consumed = watch(place, worker, count, place.server_seconds)
            place.check(worker, count)
        return consumed


def consume_without_results(server: PostgresServer, count: int) -> Consumed:
    """The same with tasks whose results nobody wants; done is what is gone from the queue."""
    with ground(server, f"SELECT {count} - ({LEFT})") as place:
        run_client("celeriac", "fill-silent", count, env=place.env)
        with celeriac().running(place.env) as worker:
            return watch(place, worker, count, place.server_seconds)


def consume_by_celery(server: PostgresServer, count: int) -> Consumed:
    """Celery's own worker, on ``sqla+postgresql`` with results in ``db+postgresql``."""
    with ground(server) as place:
        run_client("celery", "delay", count, env=place.celerys)
        waiting = place.count("SELECT count(*) FROM kombu_message WHERE visible")
        with CELERY.running(place.celerys) as worker:
            return watch(place, worker, waiting, place.server_seconds)


def consume_by_peer(server: PostgresServer, name: str, count: int) -> Consumed:
    """Another queue's worker; done is what is gone from its table."""
    program, batch, table = PEERS[name]
    contender = Contender(name, (sys.executable, "-m", f"bench.peers.{program}", "work", str(batch)))
    with ground(server, f"SELECT {count} - (SELECT count(*) FROM {table})") as place:
        run_client(program, "fill", count, env=place.env, package="bench.peers")
        with contender.running(place.env) as worker:
            return watch(place, worker, count, place.server_seconds)


# --- sending


def _sending(plan: Plan, server: PostgresServer) -> list[Row]:
    sizes = plan.sizes
    turns = {
        "Celery delay": partial(send_by_celery, server, sizes.postgres_celery),
        "one at a time": partial(send, server, "send", sizes.postgres_send, 1),
        "50 at a time": partial(send, server, "send", sizes.send, 50),
        "send_many": partial(send, server, "send-many", sizes.send_many),
    }
    celery, one, some, many = plan.in_turns("postgres, send", turns).values()
    return [
        Row("PostgreSQL: send, one at a time", "messages/s", one, celery, at_least(2_500)),
        Row("PostgreSQL: send, 50 at a time", "messages/s", some, celery, at_least(20_000)),
        Row(f"PostgreSQL: send_many of {sizes.send_many:,}", "messages/s", many, celery, at_least(40_000)),
    ]


def send(server: PostgresServer, command: str, *arguments: int) -> float:
    """Messages a second that one program sends; check that everything is there."""
    with ground(server) as place:
        said = told("celeriac", command, *arguments, env=place.env)
        place.check_sent(said["sent"])
        return float(said["rate"])


def send_by_celery(server: PostgresServer, count: int) -> float:
    """Messages a second that Celery's ``delay`` sends in a loop."""
    with ground(server) as place:
        return float(told("celery", "delay", count, env=place.celerys)["rate"])


# --- round trips


def _round_trips(plan: Plan, server: PostgresServer) -> list[Row]:
    with standing(server, celeriac()) as (place, _):
        turns = {
            how: partial(_milliseconds, place, plan.sizes.roundtrips, how)
            for how in ("roundtrip", "transactional")
        }
        runs = plan.in_turns("postgres, round trip", turns)
    return [
        Row(
            f"PostgreSQL: {name}",
            "ms",
            [percentile(times, percent) for times in runs[how]],
            goal=at_most(most),
            less_is_better=True,
        )
        for name, how, percent, most in (
            ("send and get, p50", "roundtrip", 50, 2),
            ("send and get, p99", "roundtrip", 99, 8),
            ("commit and get, p99", "transactional", 99, 50),
        )
    ]


def _milliseconds(place: PostgresGround, count: int, how: str = "roundtrip") -> list[float]:
    return [1000 * seconds for seconds in told("celeriac", how, count, env=place.env)["seconds"]]


# --- writers, and what is parked


def _writing(plan: Plan, server: PostgresServer) -> list[Row]:
    """The rate of 32 writers while a worker is busy, and the same without a look at who sleeps."""
    with standing(server, celeriac("-c", "1", "--grace", "1")) as (place, _):
        run_client("celeriac", "occupy", 2, env=place.env)
        turns = {how: partial(_written, place, how) for how in ("plain", "wake")}
        runs = plan.in_turns("postgres, 32 writers", turns)
    shares: list[Any] = [100 * wake / plain for wake, plain in zip(runs["wake"], runs["plain"], strict=True)]
    return [
        Row("PostgreSQL: 32 writers", "messages/s", runs["wake"]),
        Row("PostgreSQL: 32 writers, of the rate without wake-up", "%", shares, goal=at_least(80)),
    ]


def _written(place: PostgresGround, how: str) -> float:
    place.connection.execute("DELETE FROM celeriac_message WHERE queue = 'writers'")
    place.connection.execute("VACUUM celeriac_message")
    return float(told("writers", how, WRITING, env=place.env)["rate"])


def _parked(plan: Plan, server: PostgresServer) -> list[Row]:
    """Round trips, and the worker's memory, beside a great many messages that are for later."""
    count = plan.sizes.postgres_parked
    with standing(server, celeriac()) as (place, worker):
        before = worker.memory()
        place.connection.execute(PARKED.format(count))
        turns = {"celeriac": partial(_milliseconds, place, plan.sizes.roundtrips)}
        runs = plan.in_turns("postgres, parked", turns)["celeriac"]
        more = worker.memory() - before
    beside = f"PostgreSQL, {count:,} parked"
    worst = [percentile(times, 99) for times in runs]
    return [
        Row(f"{beside}: send and get, p99", "ms", worst, goal=at_most(20), less_is_better=True),
        Row(f"{beside}: memory more", "MB", [more], goal=at_most(10), less_is_better=True),
    ]


def _late(plan: Plan, server: PostgresServer) -> list[Row]:
    """Takes from a table that was empty when the worker looked before."""
    count = plan.sizes.postgres_late

    def slowest() -> float:
        with ground(server) as place:
            return 1000 * max(told("takes", count, env=place.env)["seconds"])

    runs = plan.in_turns("postgres, late", {"celeriac": slowest})["celeriac"]
    name = f"PostgreSQL: slowest take after {count:,} came to an empty queue"
    return [Row(name, "ms", runs, goal=at_most(20), less_is_better=True)]


def _idling(plan: Plan, server: PostgresServer) -> list[Row]:
    """What a worker that has nothing to do takes of its own processor, and of the server."""
    with standing(server, celeriac(), logs=True) as (place, worker):
        time.sleep(SETTLING)
        began, cpu, asked = time.perf_counter(), worker.fine_cpu_seconds(), place.statements()
        time.sleep(plan.sizes.idle)
        cpu, asked = worker.fine_cpu_seconds() - cpu, place.statements() - asked
        seconds = time.perf_counter() - began
        connections = worker.connections(place.port)
    used, rate = 100 * cpu / seconds, asked / seconds
    return [
        Row("PostgreSQL idle: CPU", "% of a core", [used], goal=at_most(0.2), less_is_better=True),
        Row("PostgreSQL idle: statements", "statements/s", [rate], goal=at_most(1), less_is_better=True),
        Row(
            "PostgreSQL idle: connections", "connections", [connections], goal=at_most(3), less_is_better=True
        ),
    ]
