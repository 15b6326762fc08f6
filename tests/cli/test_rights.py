"""What a Redis user may do: the ACL of the documentation is enough, and what is missing is named."""

import re
import secrets
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from celeriac import Celeriac, Retry, chord, group
from celeriac.errors import BackendError, BrokerError, BrokerUnavailable
from tests.cli.project import Project
from tests.docs.pages import ROOT
from tests.servers import RedisServer

PAGE = ROOT / "docs" / "how-to" / "secure.md"
MakeUser = Callable[..., str]


def documented(db: int = 0) -> list[str]:
    """The rules of the user on the page, for a database."""
    found = re.search(r"<!-- acl -->\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    command = found[1].split()
    assert command[:3] == ["ACL", "SETUSER", "celeriac"]
    return [rule.replace("&/0.", f"&/{db}.") for rule in command[3:] if not rule.startswith(">")]


@pytest.fixture
def make_user(redis_server: RedisServer, unique: Callable[[str], str]) -> Iterator[MakeUser]:
    """Make a user with the documented rules and further ones; return the URL of the given database for it."""
    made: list[str] = []
    client = redis_server.client()

    def make(*rules: str, db: int = 11) -> str:
        name, password = unique("user"), secrets.token_hex(8)
        client.execute_command("ACL", "SETUSER", name, f">{password}", *documented(db), *rules)
        made.append(name)
        return redis_server.url(db).replace("redis://", f"redis://{quote(name)}:{password}@")

    yield make
    client.execute_command("ACL", "DELUSER", *made)
    client.close()


def refused(server: RedisServer, url: str) -> list[str]:
    """What the server says that this user was refused."""
    user = url.partition("://")[2].partition(":")[0]
    with server.client() as client:
        return [str(entry["object"]) for entry in client.acl_log() if entry["username"] == user]


async def test_the_documented_user_can_do_all(make_user: MakeUser, redis_server: RedisServer):
    url = make_user()
    app = Celeriac("shop", url, url)
    tried: list[int] = []

    @app.task(retry=Retry(on=(OSError,), backoff=0.01, max_attempts=3))
    async def add(x: int, y: int) -> int:
        tried.append(1)
        if len(tried) == 1:
            raise OSError("not yet")
        return x + y

    @app.task
    async def total(parts: list[int]) -> int:
        return sum(parts)

    async with app, app.worker() as worker:
        await worker.ready()
        broker = app.connections().broker
        assert await (await add.send(1, 2)).wait(timeout=60) == 3
        assert await (await add.using(countdown=0.1, priority=9).send(2, 2)).wait(timeout=60) == 4
        assert await (await chord(group(add.s(1, 1), add.s(2, 2)), total.s()).send()).wait(timeout=60) == 6
        await app.cancel((await add.using(countdown=3600).send(0, 0)).id)
        await app.send_task("shop.unknown", [1])
        for result in await app.send_many([add.call(n, n) for n in range(20)]):
            await result.wait(timeout=60)
        assert await broker.examine(["celery"]) == []
        assert await app.connections().backend.examine() == []
        await broker.purge("celery")
        await broker.peek("celery")
        for letter in await broker.dead.list():
            await broker.dead.delete([letter.id])
        for parked in await broker.schedule.list():
            await broker.schedule.delete([parked.id])
    # A word of warning and the driver's name are all that it goes without.
    assert set(refused(redis_server, url)) <= {"info", "client|setinfo"}


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("-eval",), "eval"),
        (("-ping",), "ping"),
        (("-zadd", "-hdel"), "HDEL, ZADD"),
        (("resetkeys", "~celery*", "~unacked*", "~celeriac.*"), "_kombu.binding"),
        (("resetkeys", "~unacked*", "~_kombu*", "~celeriac.*"), "'celery'"),
        (("resetkeys", "~celery*", "~_kombu*", "~celeriac.*"), "'unacked'"),
    ],
)
async def test_what_a_broker_lacks_is_named(make_user: MakeUser, rules: tuple[str, ...], named: str):
    async with Celeriac("shop", make_user(*rules), "disabled://") as app:
        with pytest.raises(BrokerError, match=named) as raised:
            await app.connections().broker.examine(["celery"])
    assert not isinstance(raised.value, BrokerUnavailable)


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("-mget", "-publish"), "MGET, PUBLISH"),
        (("-subscribe",), "SUBSCRIBE"),
        (("resetchannels",), "channel 'celery-task-meta-"),
    ],
)
async def test_what_a_result_store_lacks_is_named(make_user: MakeUser, rules: tuple[str, ...], named: str):
    async with Celeriac("shop", "memory://", make_user(*rules)) as app:
        with pytest.raises(BackendError, match=named):
            await app.connections().backend.examine()


async def test_a_worker_that_has_to_poll_is_told(make_user: MakeUser):
    async with Celeriac("shop", make_user("-client"), "disabled://") as app:
        (finding,) = await app.connections().broker.examine(["celery"])
    assert "polled" in finding.text
    assert finding.fix == "let this user run CLIENT TRACKING"


def test_doctor_and_worker_try_the_rights(project: Project, make_user: MakeUser):
    enough, lacking = make_user("-llen", "-lrange", "-multi", "-exec"), make_user("-zadd")
    told = project.run("doctor", "-b", enough, "--backend", enough)
    assert (told.exit_code, "which no worker does" in told.output) == (0, True)
    told = project.run("doctor", "-b", lacking, "--backend", enough)
    assert (told.exit_code, "ZADD" in told.output) == (1, True)
    for options in (("-b", lacking, "--backend", "disabled://"), ("-b", "memory://", "--backend", lacking)):
        process = project.start("worker", "-A", project.module, *options)
        assert process.wait(timeout=60) == 3
        assert "ZADD" in process.lines[-1]
        assert "Traceback" not in process.output


def test_commands_that_were_renamed_away_and_a_memory_that_evicts(project: Project):
    gone = ["--rename-command", "EVAL", "", "--rename-command", "INFO", "", "--rename-command", "SCAN", ""]
    with RedisServer(arguments=gone) as server:
        told = project.run("doctor", "-b", server.url())
        assert (told.exit_code, "6.2 or newer, with its commands under their own names" in told.output) == (
            1,
            True,
        )
    for policy, lost in (("allkeys-lru", "every message"), ("volatile-ttl", "revocations")):
        with RedisServer(arguments=["--maxmemory-policy", policy]) as server:
            told = project.run("doctor", "-b", server.url())
            assert told.exit_code == 0
            assert f"maxmemory-policy {policy}" in told.output
            assert lost in told.output
            assert "noeviction" in told.output
