"""What is wrong with TLS is refused by name, alike for every server, and is no outage."""

from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import BrokerError, BrokerUnavailable, ConfigError
from tests.cli.project import Project
from tests.servers import RabbitServer, RedisServer
from tests.servers.certificates import stranger

Url = Callable[[str], str]
"""The TLS URL of a server, with these options."""


@pytest.fixture(scope="module", params=["rediss", "amqps"])
def url(request: pytest.FixtureRequest) -> Url:
    if request.param == "rediss":
        redis: RedisServer = request.getfixturevalue("secured_redis")
        return lambda query: redis.tls_url().partition("?")[0] + query
    rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
    return lambda query: rabbit.tls_url().partition("?")[0] + query


@pytest.fixture(scope="module")
def trusted(url: Url, request: pytest.FixtureRequest) -> Path:
    """The certificate of the server."""
    name = "secured_redis" if url("").startswith("rediss") else "rabbit_server"
    certificate: Path = request.getfixturevalue(name).certificate
    return certificate


async def refusal(url: str) -> BrokerError:
    async with Celeriac("shop", url, "disabled://") as app:
        with pytest.raises(BrokerError) as raised:
            await app.connections().broker.ping()
    assert not isinstance(raised.value, BrokerUnavailable)
    return raised.value


@pytest.mark.parametrize(
    "query",
    [
        "?ssl_check_hostname=no",
        "?ssl_check_hostname=",
        "?ssl_check_hostname=off",
        "?ssl_check_hostname=yes",
        "?ssl_cert_reqs=",
        "?ssl_cert_reqs=false",
        "?ssl_cert_reqs=none&ssl_check_hostname=true",
        "?ssl_keyfile=/key.pem",
        "?ssl_ca_certs=",
    ],
)
async def test_an_option_that_means_nothing_is_an_error(url: Url, query: str):
    async with Celeriac("shop", url(query), "disabled://") as app:
        with pytest.raises(ConfigError, match="ssl_"):
            await app.connections().broker.ping()


async def test_a_certificate_that_is_not_trusted(url: Url, tmp_path: Path):
    for query in ("", f"?ssl_ca_certs={stranger(tmp_path)[0]}"):
        assert "certificate is not trusted" in str(await refusal(url(query)))


async def test_a_host_that_the_certificate_does_not_name(url: Url, trusted: Path):
    assert "for another host" in str(await refusal(unnamed(url(f"?ssl_ca_certs={trusted}"))))


def unnamed(url: str) -> str:
    """The URL with another way to write the address, which no certificate has."""
    return url.replace("127.0.0.1", "127.1")


async def test_files_that_cannot_be_used(url: Url, trusted: Path, tmp_path: Path):
    certificate, key = stranger(tmp_path)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate\n")
    missing = tmp_path / "missing.pem"
    for query, words in (
        (f"?ssl_ca_certs={missing}", f"ssl_ca_certs={missing}: No such file"),
        (f"?ssl_ca_certs={nonsense}", f"ssl_ca_certs={nonsense} holds no certificate"),
        (f"?ssl_ca_certs={trusted}&ssl_certfile={missing}", f"ssl_certfile={missing}: No such file"),
        (
            f"?ssl_ca_certs={trusted}&ssl_certfile={certificate}&ssl_keyfile={nonsense}",
            f"ssl_keyfile={nonsense}",
        ),
        (f"?ssl_ca_certs={trusted}&ssl_certfile={trusted}&ssl_keyfile={key}", f"ssl_certfile={trusted}"),
    ):
        assert words in str(await refusal(url(query)))


async def test_a_port_without_tls(rabbit_server: RabbitServer):
    assert "speaks no TLS" in str(await refusal(rabbit_server.url().replace("amqp://", "amqps://")))


async def test_a_certificate_that_the_server_wants_of_us(tmp_path: Path):
    certificate, key = stranger(tmp_path)
    # TLS 1.3 refuses our certificate after the handshake, where a first write may find the connection reset instead.
    wanted = ["--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.2"]
    with RedisServer(tls=True, arguments=wanted) as server:
        for ours in ("", f"&ssl_certfile={certificate}&ssl_keyfile={key}"):
            told = "does not take our certificate" if ours else "it wants a certificate of ours"
            assert told in str(await refusal(server.tls_url() + ours))


async def test_checks_that_were_lowered_let_it_connect(url: Url, trusted: Path):
    for lowered in ("?ssl_cert_reqs=none", f"?ssl_ca_certs={trusted}&ssl_check_hostname=false"):
        async with Celeriac("shop", unnamed(url(lowered)), "disabled://") as app:
            assert await app.connections().broker.ping()


async def test_a_starting_worker_says_what_is_not_checked(
    url: Url, trusted: Path, queue: str, caplog: pytest.LogCaptureFixture
):
    for query, words in (
        ("?ssl_cert_reqs=none", "certificate is not checked"),
        (f"?ssl_ca_certs={trusted}&ssl_check_hostname=false", "for another host is taken"),
    ):
        app = Celeriac("shop", url(query), "disabled://", default_queue=queue)
        async with app, app.worker() as worker:
            await worker.ready()
        assert words in caplog.text
        caplog.clear()


def test_doctor_says_what_is_not_checked(project: Project, url: Url):
    told = project.run("doctor", "-b", url("?ssl_cert_reqs=none"))
    assert told.exit_code == 0
    assert "certificate is not checked" in told.output


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs=/none/missing.pem"])
def test_a_starting_worker_ends(project: Project, url: Url, query: str):
    process = project.start("worker", "-A", project.module, "-b", url(query), "--backend", "disabled://")
    assert process.wait(timeout=60) == 3
    assert "certificate" in process.lines[-1] or "missing.pem: No such file" in process.lines[-1]
    assert "Traceback" not in process.output
