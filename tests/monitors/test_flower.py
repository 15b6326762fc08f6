"""Flower looks at workers that start after it, and steers them."""

import asyncio
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from celeriac import Celeriac
from tests.servers import LoggedProcess, RedisServer
from tests.servers.redis import free_port

ROOT = Path(__file__).resolve().parents[2]
NODE, DOOMED = "ours@here", "doomed@here"
PATIENCE = 60.0


class Flower:
    """``with Flower(url) as flower`` runs Flower, and ends it."""

    def __init__(self, url: str) -> None:
        self._port = free_port()
        self._env = os.environ | {"MONITORED": url, "FLOWER_UNAUTHENTICATED_API": "true"}
        self.process: LoggedProcess | None = None

    @property
    def address(self) -> str:
        """The beginning of its URLs."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "celery",
            "-A",
            "tests.monitors.flower_app",
            "flower",
        ]
        command += [f"--port={self._port}", "--address=127.0.0.1", "--inspect_timeout=3000"]
        self.process = LoggedProcess(command, env=self._env, cwd=ROOT)
        self.process.wait_for("Connected to", timeout=PATIENCE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.process is not None
        self.process.kill()

    def _ask(self, path: str, given: dict[str, Any] | None) -> tuple[int, str]:
        data = None if given is None else urllib.parse.urlencode(given).encode()
        try:
            with urllib.request.urlopen(f"{self.address}{path}", data, PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async def get(self, path: str) -> str:
        status, text = await asyncio.to_thread(self._ask, path, None)
        assert status == 200, (path, text)
        return text

    async def post(self, path: str, **given: Any) -> str:
        status, text = await asyncio.to_thread(self._ask, path, given)
        assert status == 200, (path, text)
        told: str = json.loads(text)["message"]
        return told

    async def until(self, path: str, holds: Callable[[str], object]) -> str:
        async with asyncio.timeout(PATIENCE):
            while not holds(text := await self.get(path)):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.2)
            return text


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis whose workers and monitors are nobody else's."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def flower(server: RedisServer) -> Iterator[Flower]:
    with Flower(server.url()) as flower:
        yield flower


def start_worker(server: RedisServer, node: str, *options: str) -> LoggedProcess:
    command = [sys.executable, "-m", "celeriac", "worker", "-A", "tests.monitors.tasks", "-n", node, *options]
    worker = LoggedProcess(command, env=os.environ | {"MONITORED": server.url()}, cwd=ROOT)
    worker.wait_for(" ready", timeout=PATIENCE)
    return worker


@pytest.fixture(scope="module")
def worker(server: RedisServer, flower: Flower) -> Iterator[LoggedProcess]:
    """A worker that starts after Flower, without ``-E``."""
    worker = start_worker(server, NODE, "-l", "critical")
    yield worker
    worker.kill()


@pytest.fixture
async def app(server: RedisServer) -> AsyncIterator[Celeriac]:
    async with Celeriac("sender", server.url(), server.url(), default_queue="celery") as app:
        yield app


async def answer_of(app: Celeriac, method: str, **arguments: Any) -> Any:
    asked = await app.control.ask(method, arguments, destination=[NODE], timeout=PATIENCE)
    return asked.by_node[NODE]


def numbers(metrics: str) -> dict[tuple[str, str], float]:
    """The counts of Flower's events of our node, by task and type."""
    found = {}
    for line in metrics.splitlines():
        if line.startswith("flower_events_total{") and f'worker="{NODE}"' in line:
            labels = dict(part.split("=") for part in line[line.index("{") + 1 : line.index("}")].split(","))
            found[labels["task"].strip('"'), labels["type"].strip('"')] = float(line.rsplit(" ", 1)[1])
    return found


@pytest.mark.usefixtures("worker")
async def test_it_counts_every_task_of_a_worker_that_started_after_it(flower: Flower, app: Celeriac) -> None:
    await flower.until("/api/workers?status=true", lambda text: json.loads(text).get(NODE))
    async with asyncio.timeout(PATIENCE):
        while not (await answer_of(app, "stats"))["celeriac"]["events"]["enabled"]:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    # A test that runs again meets the worker and the Flower of its first run.
    before = numbers(await flower.get("/metrics"))
    added = await app.send_many([app.call("tasks.add", [number, 1]) for number in range(200)])
    failed = await app.send_many([app.call("tasks.fail") for _ in range(20)])
    climbed = await app.send_task("tasks.climb")
    sent = {result.id for result in [*added, *failed, climbed]}
    for result in [*added, climbed]:
        await result.wait(PATIENCE)
    more = {
        ("tasks.add", "task-received"): 200,
        ("tasks.add", "task-started"): 200,
        ("tasks.add", "task-succeeded"): 200,
        ("tasks.fail", "task-received"): 20,
        ("tasks.fail", "task-started"): 20,
        ("tasks.fail", "task-failed"): 20,
        ("tasks.climb", "task-progress"): 1,
        ("tasks.climb", "task-succeeded"): 1,
    }
    want = {kind: before.get(kind, 0.0) + count for kind, count in more.items()}
    metrics = await flower.until("/metrics", lambda text: want.items() <= numbers(text).items())
    assert f'flower_worker_online{{worker="{NODE}"}} 1.0' in metrics
    tasks = json.loads(await flower.get("/api/tasks?limit=1000"))
    assert sent <= set(tasks)
    first, last = tasks[added[0].id], tasks[failed[-1].id]
    assert (first["name"], first["state"], first["result"]) == ("tasks.add", "SUCCESS", "1")
    assert (first["args"], first["worker"], first["routing_key"]) == ("(0, 1)", NODE, "celery")
    assert (last["state"], last["exception"]) == ("FAILURE", "ValueError('boom')")
    assert last["traceback"].endswith("ValueError: boom\n")
    assert tasks[climbed.id]["state"] == "SUCCESS"
    await look_at_pages(flower, added[0].id, want["tasks.add", "task-started"])


def state_in(tasks: str, task_id: str) -> str | None:
    state: str | None = json.loads(tasks).get(task_id, {}).get("state")
    return state


async def look_at_pages(flower: Flower, task_id: str, added: float) -> None:
    for path in (
        "/workers",
        f"/worker/{NODE}",
        "/tasks",
        f"/task/{task_id}",
        "/broker",
        "/api/queues/length",
    ):
        assert await flower.get(path), path
    known = json.loads(await flower.get("/api/workers?refresh=1"))[NODE]
    assert known["stats"]["total"]["tasks.add"] == added
    assert [queue["name"] for queue in known["active_queues"]] == ["celery"]
    assert {"tasks.add", "tasks.fail"} <= set(known["registered"])
    assert "tasks.add" in await flower.get(f"/task/{task_id}")
    assert flower.process is not None
    assert [line for line in flower.process.lines if line.startswith("[E ")] == []


@pytest.mark.usefixtures("worker")
async def test_its_actions_are_seen(flower: Flower, app: Celeriac) -> None:
    await flower.until("/api/workers?status=true", lambda text: json.loads(text).get(NODE))
    before = (await answer_of(app, "stats"))["pool"]["max-concurrency"]
    await flower.get("/api/workers?refresh=1")
    assert await flower.post(f"/api/worker/pool/grow/{NODE}", n=3)
    assert await flower.post(f"/api/worker/pool/shrink/{NODE}", n=1)
    assert (await answer_of(app, "stats"))["pool"]["max-concurrency"] == before + 2
    assert await flower.post(f"/api/worker/queue/add-consumer/{NODE}", queue="other") == "add consumer other"
    assert {queue["name"] for queue in await answer_of(app, "active_queues")} == {"celery", "other"}
    moved = await app.send_task("tasks.add", [1, 1], queue="other")
    assert await moved.wait(PATIENCE) == 2
    assert "no longer" in await flower.post(f"/api/worker/queue/cancel-consumer/{NODE}", queue="other")
    assert {queue["name"] for queue in await answer_of(app, "active_queues")} == {"celery"}
    limits = {"workername": NODE, "soft": 10, "hard": 20}
    assert await flower.post("/api/task/timeout/tasks.add", **limits) == "time limits set successfully"
    rate = {"workername": NODE, "ratelimit": "100/s"}
    assert await flower.post("/api/task/rate-limit/tasks.add", **rate) == "new rate limit set successfully"
    assert any(
        "rate_limit=100/s" in line
        for line in await answer_of(app, "registered", taskinfoitems=["rate_limit"])
    )
    sleeping = await app.send_task("tasks.sleep", [3600])
    await flower.until("/api/tasks", lambda text: state_in(text, sleeping.id) == "STARTED")
    assert await flower.post(f"/api/task/revoke/{sleeping.id}", terminate="true")
    await flower.until("/api/tasks", lambda text: state_in(text, sleeping.id) == "REVOKED")


@pytest.mark.usefixtures("worker")
async def test_a_killed_worker_is_offline_and_one_that_computes_is_not(
    flower: Flower, app: Celeriac, server: RedisServer
) -> None:
    doomed = start_worker(server, DOOMED, "-Q", "nobody")
    await flower.until("/api/workers?status=true", lambda text: json.loads(text).get(DOOMED))
    beats = []
    async with app.events.listen("worker.#") as events:
        await app.send_task("tasks.compute", [5])
        doomed.kill()
        async with asyncio.timeout(PATIENCE):
            async for event in events:
                if event.node == NODE:
                    beats.append(event)
                    if len(beats) > 2 and "lag" in beats[-2].fields and "lag" not in event.fields:
                        break
    late = [event.fields["lag"] for event in beats if "lag" in event.fields]
    assert late == sorted(late)
    assert 3 < late[0] < 30
    status = await flower.until("/api/workers?status=true", lambda text: not json.loads(text)[DOOMED])
    assert json.loads(status)[NODE]


async def test_it_ends_a_worker(flower: Flower, worker: LoggedProcess) -> None:
    await flower.until("/api/workers?status=true", lambda text: json.loads(text).get(NODE))
    # Flower steers the workers that it has asked about themselves.
    await flower.until("/api/workers?refresh=1", lambda text: NODE in json.loads(text))
    assert await flower.post(f"/api/worker/shutdown/{NODE}") == "Shutting down!"
    assert worker.wait(timeout=PATIENCE) == 0
    await flower.until("/api/workers?status=true", lambda text: not json.loads(text)[NODE])
