"""Deaths and outages between the record of a task's ending and the end of its hooks: what runs again, what does not."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from amqp.exceptions import ChannelError
from celery import Celery, chain

from tests.celery_app.conftest import ROOT, TIMEOUT
from tests.celery_connections import disconnect
from tests.lines import whole_lines
from tests.servers import LoggedProcess, RabbitServer, RedisServer

pytestmark = pytest.mark.timeout(300)  # workers, their processes and a broker start within each

TASKS = "tests.celery_app.ending"
LEASE = "2"


class Stage:
    """Workers of the app ``ending`` on one broker, the test's own client of it, and what tasks noted."""

    def __init__(self, broker: str, backend: str, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._notes = directory / "notes"
        self._queue = f"ending-{os.getpid()}-{time.monotonic_ns()}"
        self._variables = {
            **os.environ,
            "ENDING_BROKER": broker,
            "ENDING_BACKEND": backend,
            "ENDING_QUEUE": self._queue,
            "ENDING_NOTES": str(self._notes),
        }
        self._workers: list[LoggedProcess] = []
        self._urls = broker, backend
        self.client = self._new_client()

    def start(self, *options: str, **variables: str) -> LoggedProcess:
        """Start a worker with one slot, and these variables of its environment."""
        command = [sys.executable, "-m", "celeriac", "worker", "-A", TASKS, "-c", "1"]
        environment = {**self._variables, **variables}
        worker = LoggedProcess([*command, "--lease", LEASE, *options], env=environment, cwd=ROOT)
        self._workers.append(worker)
        worker.wait_for(" ready", timeout=90)
        return worker

    def send(self, name: str) -> str:
        """Send a task with one to follow it; return the id of the first."""
        steps = (self.client.signature(f"{TASKS}.{one}") for one in (name, "follow"))
        return str(chain(*steps, app=self.client).apply_async().parent.id)

    def hold(self, where: str) -> None:
        """Let tasks wait there."""
        self._place(where).touch()

    def let_go(self, where: str) -> None:
        """Let tasks go on from there."""
        self._place(where).unlink()

    def note(self, what: str) -> None:
        """Write something among the notes of the tasks."""
        with self._notes.open("a") as file:
            file.write(json.dumps([what]) + "\n")

    def noted(self, task_id: str) -> list[str]:
        """What was noted of a task, and by the test itself."""
        notes = [json.loads(line) for line in whole_lines(self._notes)]
        return [what for what, *facts in notes if not facts or facts[0] == task_id]

    def wait_for(self, what: str, task_id: str, count: int = 1) -> list[Any]:
        """The note, as soon as it is there so often."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            lines = whole_lines(self._notes)
            found = [note for line in lines if (note := json.loads(line))[:2] == [what, task_id]]
            if len(found) >= count:
                return found[count - 1]
            assert time.monotonic() < deadline, (what, lines, [worker.output for worker in self._workers])
            time.sleep(0.01)

    def see_all_done(self, worker: LoggedProcess) -> None:
        """See that the worker still works, and that it has given nothing back when it has stopped."""
        # After an outage Celery's client looks for results before it subscribes again, and misses those in between.
        fresh = self._new_client()
        assert fresh.send_task(f"{TASKS}.last").get(timeout=TIMEOUT) == "last"
        assert worker.stop() == 0
        with fresh.connection_for_read() as connection:
            assert messages_in(connection.default_channel, self._queue) == 0
        disconnect(fresh)

    def close(self) -> None:
        """End everything."""
        for worker in self._workers:
            worker.kill()
        disconnect(self.client)

    def _new_client(self) -> Celery:
        """Not the app of the tasks: its pools keep connections to the broker of the test before."""
        broker, backend = self._urls
        client = Celery("client", broker=broker, backend=backend, set_as_current=False)
        client.conf.task_default_queue = self._queue
        return client

    def _place(self, where: str) -> Path:
        return Path(f"{self._notes}.{where}")


def messages_in(channel: Any, queue: str) -> int:
    """How many messages a queue has; on Redis an empty one is not there."""
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:
        return 0


@pytest.fixture(params=["redis", "rabbitmq"])
def stage(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    """The brokers that all tests share; results are on Redis."""
    broker = request.getfixturevalue("rabbit_server") if request.param == "rabbitmq" else redis_server
    made = Stage(broker.url(), redis_server.url(), tmp_path)
    yield made
    made.close()


WHOLE = ["body", "on_success", "after_return", "task_postrun"]


@pytest.mark.parametrize("task", ["early", "late"])
def test_a_child_that_dies_in_the_hooks_ends_the_hooks_alone(stage: Stage, task: str):
    stage.hold("hook")
    worker = stage.start()
    task_id = stage.send(task)
    _, _, child = stage.wait_for("on_success", task_id)
    assert child != worker.pid
    os.kill(child, SIGKILL)
    stage.let_go("hook")
    stage.wait_for("followed", task_id)
    assert stage.client.AsyncResult(task_id).get(timeout=TIMEOUT) == task_id
    stage.see_all_done(worker)
    assert [what for what in stage.noted(task_id) if what != "followed"] == ["body", "on_success"]
    assert stage.noted(task_id).count("followed") == 1


@pytest.mark.parametrize("pool", ["processes", "threads"])
@pytest.mark.parametrize("task", ["early", "late"])
def test_a_worker_that_dies_in_the_hooks(stage: Stage, task: str, pool: str):
    """Acknowledged early nothing runs again; acknowledged late body and hooks do, whole. What follows runs once."""
    stage.hold("hook")
    first = stage.start("-P", pool)
    task_id = stage.send(task)
    stage.wait_for("on_success", task_id)
    first.kill()
    stage.let_go("hook")
    second = stage.start("-P", pool)
    stage.wait_for("followed", task_id)
    if task == "late":
        stage.wait_for("after_return", task_id)
    stage.see_all_done(second)
    assert stage.client.AsyncResult(task_id).get(timeout=TIMEOUT) == task_id
    hooks = [what for what in stage.noted(task_id) if what != "followed"]
    assert hooks == (["body", "on_success", *WHOLE] if task == "late" else ["body", "on_success"])
    assert stage.noted(task_id).count("followed") == 1


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_a_task_that_succeeded_before_its_worker_died_does_not_run_again_where_the_app_says_so(
    stage: Stage, pool: str
):
    """The setting ``worker_deduplicate_successful_tasks``: its result says that it succeeded."""
    stage.hold("hook")
    first = stage.start("-P", pool, ENDING_DEDUPLICATES="1")
    task_id = stage.send("late")
    stage.wait_for("on_success", task_id)
    first.kill()
    stage.let_go("hook")
    second = stage.start("-P", pool, "-l", "info", ENDING_DEDUPLICATES="1")
    second.wait_for("Task already completed successfully")
    stage.wait_for("followed", task_id)
    stage.see_all_done(second)
    assert sorted(stage.noted(task_id)) == ["body", "followed", "on_success"]


@pytest.fixture(scope="module")
def kept_rabbit(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[RabbitServer]:
    """A node of this module's own, which its tests end and start again."""
    with RabbitServer() as rabbit:
        first = Stage(rabbit.url(), redis_server.url(), tmp_path_factory.mktemp("first"))
        first.start().stop()
        first.close()
        # A node that is killed within a second of the first worker's start has not written its stream down.
        for command in ("stop_app", "start_app"):
            rabbit.control(command)
        yield rabbit


@pytest.fixture
def own_rabbit(kept_rabbit: RabbitServer) -> Iterator[RabbitServer]:
    yield kept_rabbit
    kept_rabbit.recover()


Outage = tuple[dict[str, Stage], Callable[[], None], Callable[[], None]]


@pytest.fixture(params=["redis", "rabbitmq"])
def outage(request: pytest.FixtureRequest, own_redis: RedisServer, tmp_path: Path) -> Iterator[Outage]:
    """A stage for each task, what ends their broker at once, and what starts it again."""
    broker = request.getfixturevalue("own_rabbit") if request.param == "rabbitmq" else own_redis
    stages = {task: Stage(broker.url(), own_redis.url(), tmp_path / task) for task in ("early", "late")}
    yield stages, broker.kill, broker.start
    for stage in stages.values():
        stage.close()


def begun(stages: dict[str, Stage], where: str, what: str) -> dict[str, tuple[Stage, LoggedProcess, str]]:
    """Send each stage's task; return stage, worker and the task's id when it waits in a place, having noted that."""
    running = {}
    for task, stage in stages.items():
        stage.hold(where)
        running[task] = stage, stage.start(), stage.send(task)
    for stage, _, task_id in running.values():
        stage.wait_for(what, task_id)
    return running


def test_a_broker_that_goes_before_the_record_delays_the_hooks(outage: Outage):
    """Whether the task is acknowledged early or late."""
    stages, end, begin = outage
    running = begun(stages, "body", "body")
    end()
    for stage, worker, _ in running.values():
        stage.let_go("body")
        worker.wait_for(", again in")
        stage.note("the broker is back")
    begin()
    for stage, worker, task_id in running.values():
        stage.wait_for("task_postrun", task_id)
        stage.wait_for("followed", task_id)
        stage.see_all_done(worker)
        hooks = [what for what in stage.noted(task_id) if what != "followed"]
        assert hooks == ["body", "the broker is back", *WHOLE[1:]]
        assert stage.noted(task_id).count("followed") == 1


def test_a_broker_that_goes_after_the_record_delays_the_acknowledgement(outage: Outage):
    """Whether the task is acknowledged early or late."""
    stages, end, begin = outage
    running = begun(stages, "hook", "on_success")
    end()
    for stage, _, task_id in running.values():
        stage.let_go("hook")
        stage.wait_for("task_postrun", task_id)
        stage.note("the broker is back")
    begin()
    for stage, worker, task_id in running.values():
        stage.wait_for("followed", task_id)
        stage.see_all_done(worker)
        hooks = [what for what in stage.noted(task_id) if what != "followed"]
        assert hooks == [*WHOLE, "the broker is back"]
        assert stage.noted(task_id).count("followed") == 1
