"""What a Sentinel will not do tomorrow either is no outage."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import BrokerError, BrokerUnavailable
from tests.cli.project import Project
from tests.servers import RedisServer
from tests.servers.process import LoggedProcess
from tests.servers.redis import HOST, free_port, redis_program


@pytest.fixture(scope="module")
def guarded(secured_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a Sentinel listens that wants a password; it watches ``mine``, and ``down``, which is not there."""
    directory, port = tmp_path_factory.mktemp("sentinel"), free_port()
    settings = Path(directory, "sentinel.conf")
    settings.write_text(
        f"port {port}\nbind {HOST}\ndir {directory}\nrequirepass secret\n"
        f"sentinel monitor mine {HOST} {secured_redis.port} 1\n"
        f"sentinel auth-pass mine {secured_redis.password}\n"
        f"sentinel monitor down {HOST} 1 1\n"
        "sentinel down-after-milliseconds down 100\n"
    )
    process = LoggedProcess([redis_program(), str(settings), "--sentinel"])
    process.wait_for("+monitor master mine")
    process.wait_for("+sdown master down")
    yield f"sentinel://:pass%2Fword%401@{HOST}:{port}/5"
    process.kill()


async def error_of(url: str) -> BrokerError:
    async with Celeriac("shop", url, "disabled://") as app:
        with pytest.raises(BrokerError) as raised:
            await app.connections().broker.ping()
    return raised.value


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?master_name=mine", "sentinel_password"),
        ("?master_name=mine&sentinel_password=wrong", "sentinel_password"),
        ("?master_name=yours&sentinel_password=secret", "check master_name"),
    ],
)
async def test_a_refusal_is_named(guarded: str, query: str, words: str):
    error = await error_of(guarded + query)
    assert words in str(error)
    assert not isinstance(error, BrokerUnavailable)


async def test_a_masters_password_is_told_from_the_sentinels(guarded: str):
    wrong = guarded.replace("pass%2Fword%401", "wrong")
    error = await error_of(f"{wrong}?master_name=mine&sentinel_password=secret")
    assert "refused the login" in str(error)
    assert not isinstance(error, BrokerUnavailable)


async def test_a_master_that_is_down_is_an_outage(guarded: str):
    assert isinstance(
        await error_of(f"{guarded}?master_name=down&sentinel_password=secret"), BrokerUnavailable
    )


async def test_all_well(guarded: str):
    async with Celeriac("shop", f"{guarded}?master_name=mine&sentinel_password=secret", "disabled://") as app:
        assert await app.connections().broker.ping()


def test_a_starting_worker_ends(project: Project, guarded: str):
    url = f"{guarded}?master_name=yours&sentinel_password=secret"
    process = project.start("worker", "-A", project.module, "-b", url, "--backend", "disabled://")
    assert process.wait(timeout=60) == 3
    assert "check master_name" in process.lines[-1]
