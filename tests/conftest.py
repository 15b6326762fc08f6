"""What every test may ask for: a private Redis, RabbitMQ and PostgreSQL, and names that nobody else uses."""

import signal
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.logging_state import as_usual
from tests.newer_python import said_of_django_6
from tests.servers import PostgresServer, RabbitServer, RedisSentinel, RedisServer

LONGEST = (
    "celery_app/test_two_phase_end.py",
    "amqp/test_faults.py",
    "faults/test_crash_matrix.py",
    "docs/test_pages.py",
    "integrations/test_django_tasks.py",
    "web/test_browser.py",
    "contract/test_postgres.py",
    "celery_suite/test_suite.py",
    "web/test_resent.py",
    "beat/test_ticker.py",
    "interop/test_workflows.py",
    "web/test_celery_fleets.py",
    "faults/test_rabbit_outages.py",
    "web/test_foreign.py",
    "postgres/test_pooler.py",
    "postgres/test_newest.py",
    "faults/test_leases.py",
    "cli/test_worker.py",
    "amqp/test_steered_fleet.py",
    "web/test_pages.py",
    "celery_app/test_mixed_fleet.py",
    "celery_app/test_django.py",
    "contract/test_amqp.py",
    "contract/test_sqlite.py",
    "amqp/test_delivery.py",
    "worker/test_remote.py",
    "faults/test_published_once.py",
    "web/test_screenshots.py",
    "web/test_wheel.py",
    "amqp/test_rights.py",
    "hostile/test_fanout.py",
    "worker/test_memory.py",
    "interop/amqp/test_table.py",
    "web/test_mounted.py",
    "monitors/test_celery_programs.py",
    "faults/test_reconnect.py",
    "interop/test_together.py",
    "probes/test_health.py",
    "worker/test_large_workflows.py",
    "amqp/test_left_behind.py",
    "chaos/test_chaos.py",
    "wire/test_round_trips.py",
)
"""Files that take longest, the longest first: from a run with a timing of each file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: one that begins last keeps a single process busy at the end."""
    tests = Path(__file__).parent
    turns = {tests / name: turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


def pytest_report_header() -> str:
    """Say what Django 6 is tested by, which the Python of this run may be too old for."""
    return said_of_django_6()


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: what a shell runs in the background ignores it, children included."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Fail the test that leaves logging changed, or whose fixtures do: another test reads what our loggers say."""
    yield
    changed = as_usual()
    assert not changed, f"this test left logging changed: {', '.join(changed)}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's shared Redis. It is shared: use fresh names (`unique`), never flush or stop it."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """The URL of database 0 of the shared Redis."""
    return redis_server.url()


@pytest.fixture(scope="session")
def secured_redis() -> Iterator[RedisServer]:
    """A shared Redis that wants a password, and speaks TLS as well."""
    with RedisServer(password="pass/word@1", tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[RedisSentinel]:
    """A primary, a replica and two Sentinels, shared by the session."""
    with RedisSentinel() as sentinel:
        yield sentinel


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for this test alone, to stop, kill, pause and start again; its data outlives a kill."""
    with RedisServer(durable=True) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """The session's shared RabbitMQ. It is shared: use fresh names (`unique`), never stop it."""
    with RabbitServer(tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_url(rabbit_server: RabbitServer) -> str:
    """The URL of the shared RabbitMQ."""
    return rabbit_server.url()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's shared PostgreSQL. It is shared: use a schema of your own (`postgres_schema`), never stop it."""
    with PostgresServer() as server:
        with server.client() as connection:
            # May use tables, may make none.
            connection.execute("CREATE ROLE guest LOGIN")
        yield server


@pytest.fixture
def postgres_schema(postgres_server: PostgresServer) -> Iterator[str]:
    """A schema that holds nothing, dropped afterwards; the role `guest` may use what is made in it."""
    schema = f"test_{uuid.uuid4().hex[:16]}"
    with postgres_server.client() as connection:
        connection.execute(
            f"CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO guest;"
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON TABLES TO guest;"
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON SEQUENCES TO guest"
        )
        yield schema
        connection.execute(f"SET lock_timeout = '20s'; DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_schema: str) -> str:
    """The URL of a schema that holds nothing."""
    return postgres_server.url(postgres_schema)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Make a name that no other test uses: ``unique("queue")``."""
    return lambda stem: f"{stem}-{uuid.uuid4().hex}"


@pytest.fixture
def queue(unique: Callable[[str], str]) -> str:
    """A queue name that no other test uses."""
    return unique("queue")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let half a surrogate pair in a captured log not end a session of several processes, which cannot send it."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
