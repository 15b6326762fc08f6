"""What is wrong with TLS is refused by name, and is no outage; what lowers a check is said."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import BrokerError, BrokerUnavailable, ConfigError
from tests.cli.project import Project
from tests.servers import PostgresServer
from tests.servers.certificates import stranger

Url = Callable[[str], str]
"""The URL of the server, with these options."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(tls=True) as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Url:
    return lambda query: server.url() + query


async def refusal(url: str) -> BrokerError:
    async with Celeriac("shop", url, "disabled://") as app:
        with pytest.raises(BrokerError) as raised:
            await app.connections().broker.ping()
    assert not isinstance(raised.value, BrokerUnavailable)
    return raised.value


@pytest.mark.parametrize(
    "query",
    ["?sslmode=on", "?sslmode=", "?sslmode=VERIFY-FULL", "?sslrootcert=", "?sslkey=/key.pem", "?ssl=true"],
)
async def test_an_option_that_means_nothing_is_an_error(query: str):
    with pytest.raises(ConfigError, match="ssl"):
        Celeriac("shop", f"postgresql://127.0.0.1/postgres{query}", "disabled://").connections()


async def test_what_is_refused(url: Url, server: PostgresServer, tmp_path: Path):
    foreign, key = stranger(tmp_path)
    trusted, missing, nonsense = server.certificate, tmp_path / "missing.pem", tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate\n")
    for query, words in (
        (f"?sslmode=verify-full&sslrootcert={foreign}", "certificate is not trusted"),
        (f"?sslmode=verify-ca&sslrootcert={foreign}", "certificate is not trusted"),
        (f"?sslmode=verify-full&sslrootcert={missing}", f"sslrootcert={missing}: No such file"),
        (f"?sslmode=verify-full&sslrootcert={nonsense}", f"sslrootcert={nonsense} holds no certificate"),
        (f"?sslmode=require&sslcert={missing}", f"sslcert={missing}: No such file"),
        (f"?sslmode=require&sslcert={trusted}&sslkey={key}", f"sslcert={trusted}, sslkey={key}"),
    ):
        assert words in str(await refusal(url(query)))
    unnamed = url(f"?sslmode=verify-full&sslrootcert={trusted}").replace("127.0.0.1", "127.1")
    assert "for another host" in str(await refusal(unnamed))


async def test_a_server_without_tls(postgres_server: PostgresServer):
    assert "speaks no TLS" in str(await refusal(postgres_server.url() + "?sslmode=require"))


async def test_what_is_not_checked_is_said(url: Url, server: PostgresServer):
    trusted = f"&sslrootcert={server.certificate}"
    for query, words in (
        (f"?sslmode=verify-full{trusted}", ""),
        (f"?sslmode=verify-ca{trusted}", "for another host is taken"),
        ("?sslmode=require", "certificate is not checked"),
        ("?sslmode=prefer", "certificate is not checked"),
    ):
        async with Celeriac("shop", url(query), url(query)) as app:
            connections = app.connections()
            await connections.broker.ping()
            for found in (await connections.broker.examine([]), await connections.backend.examine()):
                assert words in " ".join(str(finding) for finding in found)
                assert bool(found) == bool(words)


def test_a_starting_worker_ends(project: Project, url: Url):
    missing = url("?sslmode=verify-full&sslrootcert=/none/missing.pem")
    process = project.start("worker", "-A", project.module, "-b", missing, "--backend", "disabled://")
    assert process.wait(timeout=60) == 3
    assert "missing.pem: No such file" in process.lines[-1]
    assert "Traceback" not in process.output
