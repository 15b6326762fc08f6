"""Celery's own command line and client ask and steer a worker of ours."""

import asyncio
import gc
import json
import logging
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import celery
import pytest

from celeriac import Celeriac
from celeriac.contracts.fanout import Exchange, ReplyTo
from celeriac.errors import TaskRevoked
from celeriac.wire.envelope import Envelope
from celeriac.worker.panel import ALIASES, INSPECT
from tests.docs.pages import ROOT
from tests.servers import RabbitServer, RedisServer

NODE = "ours@here"


class Sleeper:
    """A task that runs until it is let go."""

    def __init__(self, app: Celeriac) -> None:
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.task = app.task(name="tasks.sleep")(self.run)

    async def run(self, number: int = 0) -> int:
        self.began.set()
        await self.go.wait()
        return number


@pytest.fixture(scope="module")
def alone() -> Iterator[RedisServer]:
    """A Redis whose remote control is nobody else's: requests go to every worker of a database."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["redis", "rabbitmq"])
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("alone")
        return server.url()
    rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
    return rabbit.url()


@pytest.fixture
async def app(place: str, tmp_path: Path, unique: Callable[[str], str]) -> AsyncIterator[Celeriac]:
    results = place if place.startswith("redis") else f"sqlite:///{tmp_path}/results.db"
    queue = unique("remote")
    async with Celeriac("remote", place, results, default_queue=queue, remote_control=True) as app:
        yield app


@pytest.fixture
def client(place: str) -> Iterator[celery.Celery]:
    app = celery.Celery("client", broker=place)
    yield app
    app.close()


async def ask(client: celery.Celery, method: str, **arguments: Any) -> Any:
    """Return what our node answers to Celery's client."""

    def broadcast() -> Any:
        return client.control.broadcast(method, arguments, destination=[NODE], reply=True, timeout=15)

    answers = await asyncio.to_thread(broadcast)
    assert [list(answer) for answer in answers] == [[NODE]]
    return answers[0][NODE]


async def run_celery(place: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # It waits a second for answers unless it is told otherwise, and no longer than until all have come.
    command = [sys.executable, "-m", "celery", "-b", place, *arguments, "-t", "30"]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.01)


async def test_celerys_command_line_sees_it(app: Celeriac, place: str) -> None:
    sleeper = Sleeper(app)
    async with app.worker(name=NODE, concurrency=3):
        result = await sleeper.task.send(6)
        await asyncio.wait_for(sleeper.began.wait(), 60)
        status, ping, active = await asyncio.gather(
            run_celery(place, "status", "-d", NODE),
            run_celery(place, "inspect", "ping", "-d", NODE, "-j"),
            run_celery(place, "inspect", "active", "-d", NODE, "-j"),
        )
        sleeper.go.set()
        assert await result.wait(60) == 6
    assert status.returncode == 0, status.stderr
    assert f"{NODE}: OK" in status.stdout
    assert "1 node online." in status.stdout
    assert json.loads(ping.stdout) == {NODE: {"ok": "pong"}}
    (running,) = json.loads(active.stdout)[NODE]
    assert (running["id"], running["name"], running["args"]) == (result.id, "tasks.sleep", [6])


async def test_celerys_command_line_ends_it(app: Celeriac, place: str) -> None:
    worker = app.worker(name=NODE)
    ready = asyncio.Event()
    serving = asyncio.create_task(worker.serve(on_ready=ready.set))
    await asyncio.wait_for(ready.wait(), 60)
    ended = await run_celery(place, "control", "shutdown", "-d", NODE)
    await asyncio.wait_for(serving, 60)
    assert ended.returncode == 0, ended.stderr
    assert "shutting down" in ended.stdout


async def test_what_runs_is_told_as_celery_tells_it(app: Celeriac, client: celery.Celery) -> None:
    sleeper = Sleeper(app)
    async with app.worker(name=NODE):
        result = await sleeper.task.send(6)
        await asyncio.wait_for(sleeper.began.wait(), 60)
        (running,) = await ask(client, "active")
        (safe,) = await ask(client, "dump_active", safe=True)
        known = await ask(client, "query_task", ids=[result.id, "unknown"])
        sleeper.go.set()
        await result.wait(60)
        assert await ask(client, "active") == []
    assert (safe["args"], safe["kwargs"]) == ("(6,)", "{}")
    assert abs(running.pop("time_start") - time.time()) < 60
    assert isinstance(running.pop("worker_pid"), int)
    assert running == {
        "id": result.id,
        "name": "tasks.sleep",
        "args": [6],
        "kwargs": {},
        "type": "tasks.sleep",
        "hostname": NODE,
        "acknowledged": False,
        "delivery_info": {
            "exchange": "",
            "routing_key": app.settings.default_queue,
            "priority": 0,
            "redelivered": False,
        },
    }
    assert [*known] == [result.id]
    assert known[result.id][0] == "active"


async def test_what_is_for_later_is_told(app: Celeriac, client: celery.Celery) -> None:
    sleeper = Sleeper(app)
    async with app.worker(name=NODE):
        result = await sleeper.task.using(countdown=600).send(1)
        async with asyncio.timeout(60):
            while not (scheduled := await ask(client, "scheduled")):
                pass
        (entry,) = scheduled
        assert (entry["priority"], entry["request"]["id"]) == (6, result.id)
        assert entry["eta"].endswith("+00:00")
        assert (await ask(client, "query_task", ids=result.id))[result.id][0] == "scheduled"
        await ask(client, "revoke", task_id=result.id)
        # It is not parked any more: a worker has declined it, who also ends what waits for it.
        with pytest.raises(TaskRevoked):
            await result.wait(60)
        async with asyncio.timeout(60):
            while await ask(client, "scheduled"):
                pass


async def test_the_worker_itself_is_described(app: Celeriac, client: celery.Celery, place: str) -> None:
    sleeper = Sleeper(app)
    app.task(name="tasks.limited", timeout=30)(sleeper.run)
    async with app.worker(name=NODE, concurrency=7):
        sleeper.go.set()
        await (await sleeper.task.send(1)).wait(60)
        stats = await ask(client, "stats")
        assert stats["total"] == {"tasks.sleep": 1}
        assert stats["pool"]["max-concurrency"] == 7
        assert stats["pool"]["processes"] == [stats["pid"]]
        assert stats["broker"]["port"] == int(place.rsplit(":", maxsplit=1)[-1].split("/", maxsplit=1)[0])
        assert stats["rusage"]["utime"] > 0
        assert int(stats["clock"]) > 0
        (queue,) = await ask(client, "active_queues")
        assert (queue["name"], queue["routing_key"]) == (app.settings.default_queue,) * 2
        assert await ask(client, "registered") == ["tasks.limited", "tasks.sleep"]
        assert await ask(client, "registered", taskinfoitems=["time_limit"]) == [
            "tasks.limited [time_limit=30]",
            "tasks.sleep",
        ]
        conf = await ask(client, "conf")
        assert conf["task_default_queue"] == app.settings.default_queue
        assert "task_serializer" not in conf
        assert (await ask(client, "conf", with_defaults=True))["task_serializer"] == "json"
        assert "software -> celery:5.7.0" in (await ask(client, "report"))["ok"]
        assert await ask(client, "reserved") == []
        assert (await ask(client, "clock"))["clock"] > 0
        assert isinstance((await ask(client, "hello", from_node="other@here", revoked=[]))["revoked"], list)


async def test_revoking_reaches_what_waits_and_what_runs(app: Celeriac, client: celery.Celery) -> None:
    sleeper = Sleeper(app)
    async with app.worker(name=NODE, concurrency=1):
        running = await sleeper.task.send(1)
        await asyncio.wait_for(sleeper.began.wait(), 60)
        waiting = await sleeper.task.send(2)
        assert await ask(client, "revoke", task_id=waiting.id, terminate=False, signal="SIGTERM") == {
            "ok": f"tasks {{'{waiting.id}'}} flagged as revoked"
        }
        assert waiting.id in await ask(client, "revoked")
        unknown = await ask(client, "revoke", task_id=["nobody"], terminate=True, signal="SIGKILL")
        assert unknown == {"ok": "terminate: tasks unknown"}
        ended = await ask(client, "terminate", signal="SIGTERM", task_id=running.id)
        assert ended == {"ok": f"terminate: {running.id}"}
        for result in (running, waiting):
            with pytest.raises(TaskRevoked):
                await result.wait(60)


async def test_queues_slots_and_limits_are_changed(app: Celeriac, client: celery.Celery, queue: str) -> None:
    sleeper = Sleeper(app)
    async with app.worker(name=NODE, concurrency=1) as worker:
        assert await ask(client, "add_consumer", queue=queue, exchange=None, exchange_type="direct") == {
            "ok": f"add consumer {queue}"
        }
        assert worker.queues == (app.settings.default_queue, queue)
        assert await ask(client, "pool_grow", n=2) == {"ok": "pool will grow"}
        assert worker.concurrency == 3
        assert await ask(client, "pool_shrink", n=1) == {"ok": "pool will shrink"}
        assert worker.concurrency == 2
        elsewhere = await sleeper.task.using(queue=queue).send(4)
        await asyncio.wait_for(sleeper.began.wait(), 60)
        assert await ask(client, "cancel_consumer", queue=queue) == {
            "ok": f"no longer consuming from {queue}"
        }
        assert worker.queues == (app.settings.default_queue,)
        sleeper.go.set()
        assert await elsewhere.wait(60) == 4
        sleeper.go.clear()
        limited = {"ok": "time limits set successfully"}
        assert await ask(client, "time_limit", task_name="tasks.sleep", soft=None, hard=0.2) == limited
        told = await ask(client, "registered", taskinfoitems=["time_limit", "soft_time_limit"])
        assert "tasks.sleep [time_limit=0.2]" in told
        with pytest.raises(Exception, match=r"(?i)time ?limit"):
            await (await sleeper.task.send(5)).wait(60)
        assert await ask(client, "time_limit", task_name="nope", hard=1) == {"error": "unknown task"}


async def test_what_cannot_be_done_is_answered_in_celerys_words(app: Celeriac, client: celery.Celery) -> None:
    async with app.worker(name=NODE):
        assert await ask(client, "nosuch") == {"error": "KeyError('nosuch')"}
        assert await ask(client, "pool_restart") == {
            "error": "ValueError('Pool restarts not enabled: this pool has no child processes to replace')"
        }
        assert "TypeError" in (await ask(client, "autoscale", most=5))["error"]
        assert "ValueError" in (await ask(client, "autoscale", max=1, min=2))["error"]
        assert "ImportError" in (await ask(client, "objgraph"))["error"]
        assert await ask(client, "enable_events") == {"ok": "task events enabled"}
        assert await ask(client, "enable_events") == {"ok": "task events already enabled"}
        assert await ask(client, "disable_events") == {"ok": "task events disabled"}
        assert await ask(client, "disable_events") == {"ok": "task events already disabled"}
        assert await ask(client, "heartbeat") is None
        assert "TypeError" in (await ask(client, "add_consumer", bogus=1))["error"]
        assert "ConfigError" in (await ask(client, "pool_grow", n=-1))["error"]
        assert "part of a program" in (await ask(client, "shutdown"))["error"]


async def test_it_answers_only_what_is_meant_for_it(app: Celeriac, client: celery.Celery) -> None:
    async with app.worker(name=NODE):

        def ping(**how: Any) -> Any:
            return client.control.broadcast("ping", reply=True, timeout=1, **how)

        ours = {NODE: {"ok": "pong"}}
        assert ours in await asyncio.to_thread(ping, pattern="ours@*", matcher="glob")
        assert ours in await asyncio.to_thread(ping, pattern="ours@h.re$", matcher="pcre")
        assert ours not in await asyncio.to_thread(ping, pattern="theirs@*", matcher="glob")


async def test_malformed_requests_stop_and_delay_nobody(
    app: Celeriac, client: celery.Celery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    fanout = app.connections().broker.fanout
    assert fanout is not None
    bodies: list[Any] = [
        None, 7, [], "text", {}, {"method": None}, {"method": 5}, {"method": "ping", "arguments": []},
        {"method": "ping", "arguments": 7, "destination": 9}, {"method": "ping", "destination": {"a": 1}},
        {"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"},
        {"method": "ping", "pattern": "(", "matcher": "pcre"},
        {"method": "ping", "pattern": "x" * 10_000, "matcher": "glob"}, {"method": "ping", "reply_to": "me"},
        {"method": "ping", "reply_to": {"exchange": 1, "routing_key": None}},
        {"method": "ping", "reply_to": {"exchange": "nowhere", "routing_key": "nobody"}, "ticket": 5},
        {"method": "active", "arguments": {"safe": [[]]}}, {"method": "revoke", "arguments": {"task_id": {"a": 1}}},
        {"method": "query_task", "arguments": {"ids": 7}}, {"method": "registered", "arguments": {"taskinfoitems": 5}},
        {"method": "time_limit", "arguments": {"task_name": [], "hard": "x"}}, {"method": "__class__"},
        {"method": "add_consumer", "arguments": {"queue": 5}}, {"method": "x" * 1_000_000},
    ]  # fmt: skip
    raw = [b"", b"{", b"\xff\xfe", b"[" * 5000]
    async with app.worker(name=NODE) as worker:
        for body in [*(json.dumps(body).encode() for body in bodies), *raw]:
            for kind in ("application/json", "application/x-python-serialize", None):
                envelope = Envelope(body=body, content_type=kind, headers={"clock": "x", "expires": []})
                await fanout.publish(Exchange("celery.pidbox"), envelope)
        began = time.monotonic()
        assert await ask(client, "ping") == {"ok": "pong"}
        assert time.monotonic() - began < 10
        assert worker.queues == (app.settings.default_queue,)
    assert "celeriac.worker" not in {record.name for record in caplog.records}


async def test_random_requests_stop_nobody(
    app: Celeriac, client: celery.Celery, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # what other tests left is told here, and not in the end
    caplog.clear()
    fanout = app.connections().broker.fanout
    assert fanout is not None
    choice = random.Random(7)
    values = [
        None,
        True,
        -1,
        2**70,
        0.5,
        "",
        "x",
        NODE,
        "\ud800",
        [],
        [[]],
        ["x", None],
        {},
        {"a": {"b": []}},
    ]
    places = [
        {"exchange": "reply.celery.pidbox", "routing_key": key} for key in ("nobody", "\ud800", "x" * 1000)
    ]
    names = ["safe", "ids", "task_id", "taskinfoitems", "with_defaults", "from_node", "self", "x", ""]
    async with app.worker(name=NODE):
        for _ in range(200):
            arguments = {choice.choice(names): choice.choice(values) for _ in range(choice.randrange(4))}
            body = {
                "method": choice.choice([*INSPECT, *ALIASES, "__init__", "x", 5]),
                "arguments": choice.choice([arguments, arguments, arguments, *values]),
                "destination": choice.choice([None, None, [NODE], *values]),
                "reply_to": choice.choice([*values, *places, *places]),
                "ticket": choice.choice(values),
            }
            envelope = Envelope(body=json.dumps(body).encode(), content_type="application/json")
            await fanout.publish(Exchange("celery.pidbox"), envelope)
        assert await ask(client, "ping") == {"ok": "pong"}
    gc.collect()
    assert "asyncio" not in {record.name for record in caplog.records}


async def test_large_arguments_are_told_as_text(app: Celeriac, client: celery.Celery) -> None:
    app_began, go = asyncio.Event(), asyncio.Event()

    @app.task(name="tasks.large")
    async def large(text: str) -> None:
        app_began.set()
        await go.wait()

    async with app.worker(name=NODE):
        await large.send("x" * 200_000)
        await asyncio.wait_for(app_began.wait(), 60)
        (running,) = await ask(client, "active")
        go.set()
    assert isinstance(running["args"], str)
    assert len(running["args"]) <= 1024


async def test_a_name_in_use_costs_remote_control_alone(
    rabbit_url: str, tmp_path: Path, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    node, queue = f"{unique('node')}@here", unique("remote")
    results = f"sqlite:///{tmp_path}/results.db"
    async with (
        Celeriac("one", rabbit_url, results, default_queue=queue, remote_control=True) as one,
        Celeriac("two", rabbit_url, results, default_queue=f"{queue}-2", remote_control=True) as two,
    ):

        @two.task
        async def double(number: int) -> int:
            return 2 * number

        async with one.worker(name=node):
            fanout = one.connections().broker.fanout
            assert fanout is not None
            async with asyncio.timeout(60):
                while await fanout.publish(Exchange("celery.pidbox"), Envelope(body=b"")) == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            async with two.worker(name=node):
                assert await (await double.send(4)).wait(60) == 8
                await until(lambda: f"{node} cannot be asked or steered" in caplog.text)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_the_same_methods_answer_where_celery_does_not_come(
    kind: str, tmp_path: Path, unique: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/tasks.db"
    if kind == "postgres":
        url = request.getfixturevalue("postgres_url")
    async with Celeriac("remote", url, url, default_queue=unique("queue"), remote_control=True) as app:
        async with app.worker(name=NODE):
            fanout = app.connections().broker.fanout
            assert fanout is not None
            reply_to = ReplyTo("reply.celery.pidbox", "me")
            question = {
                "method": "ping",
                "reply_to": {"exchange": reply_to.exchange, "routing_key": reply_to.key},
            }
            envelope = Envelope(body=json.dumps(question).encode(), content_type="application/json")
            async with (
                asyncio.timeout(60),
                fanout.ask(Exchange("celery.pidbox"), envelope, reply_to, expect=1) as answers,
            ):
                (answer,) = [answer async for answer in answers]
        assert isinstance(answer, Envelope)
        assert json.loads(answer.body) == {NODE: {"ok": "pong"}}
        assert await fanout.publish(Exchange("celery.pidbox"), envelope) == 0


async def test_it_can_be_switched_off() -> None:
    async with Celeriac("remote", "memory://", remote_control=False) as app, app.worker():
        assert (await app.control.ask("ping", timeout=20)).listeners == 0


async def test_questions_alone_can_be_allowed() -> None:
    async with (
        Celeriac("remote", "memory://", remote_control="inspect") as app,
        app.worker(name=NODE) as worker,
    ):

        async def answer(method: str, **arguments: Any) -> Any:
            return (await app.control.ask(method, arguments, timeout=20)).by_node[NODE]

        assert await answer("ping") == {"ok": "pong"}
        assert "answers questions only" in (await answer("add_consumer", queue="more"))["error"]
        assert await answer("heartbeat") is None
        assert worker.queues == ("celery",)


async def test_the_documented_rights_are_enough(alone: RedisServer, unique: Callable[[str], str]) -> None:
    page = (ROOT / "docs" / "how-to" / "secure.md").read_text()
    found = re.search(r"<!-- acl -->\n```text\n(.*?)```", page, re.DOTALL)
    assert found is not None
    rules = found[1].replace("ACL SETUSER celeriac", "").split()
    user = unique("user")
    with alone.client() as client:
        client.execute_command("ACL", "SETUSER", user, *(rule.replace("/0.", "/3.") for rule in rules))
    url = alone.url(3).replace("redis://", f"redis://{user}:password@")
    async with Celeriac("remote", url, url, remote_control=True) as app, app.worker(name=NODE):
        asking = celery.Celery("client", broker=alone.url(3))
        assert await ask(asking, "ping") == {"ok": "pong"}
        asking.close()
        assert (await app.control.ask("ping", timeout=20)).by_node == {NODE: {"ok": "pong"}}
    with alone.client() as client:
        objects = {entry["object"] for entry in client.acl_log() if entry["username"] == user}
    assert objects <= {"client|setinfo", "info"}


async def test_being_asked_costs_no_connection(own_redis: RedisServer, queue: str) -> None:
    async def connections(*, remote_control: bool) -> int:
        url = own_redis.url()
        async with (
            Celeriac("remote", url, url, default_queue=queue, remote_control=remote_control) as app,
            app.worker(),
        ):
            with own_redis.client() as client:
                before, now = -1, 0
                while before != now:
                    await asyncio.sleep(0.5)
                    before, now = now, len(client.client_list())
                return now

    assert await connections(remote_control=True) == await connections(remote_control=False)
