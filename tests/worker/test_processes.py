"""Plain functions in child processes."""

import asyncio
import os
import pickle
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from celeriac import Celeriac, Context, Listener, RemoteError
from celeriac.client.task import Task
from celeriac.errors import ConfigError, EncodeError, TaskAborted, TaskRevoked, TimeLimitExceeded, WorkerLost
from celeriac.wire.task import TaskMessage
from celeriac.worker.attachments import Attachments
from celeriac.worker.pool import Call
from celeriac.worker.pools.processes.pool import Processes
from celeriac.worker.pools.processes.portable import portable, restored
from celeriac.worker.worker import Worker
from tests.worker import process_tasks as tasks

WAIT = 60.0


@pytest.fixture
async def app() -> AsyncIterator[Celeriac]:
    async with tasks.app, tasks.app.worker(pool="processes", concurrency=2):
        yield tasks.app


async def test_values_exceptions_and_context_cross_the_border(app: Celeriac):
    value, pid = await (await tasks.square.send(7)).wait(WAIT)
    assert value == 49
    assert pid != os.getpid()
    with pytest.raises(KeyError, match="here"):
        await (await tasks.fails.send()).wait(WAIT)
    with pytest.raises((RemoteError, tasks.Custom)):
        await (await tasks.fails_unpicklably.send()).wait(WAIT)
    with pytest.raises(EncodeError):
        await (await tasks.unpicklable.send()).wait(WAIT)
    result = await tasks.tell.send()
    assert await result.wait(WAIT) == [result.id, 1, "celery"]
    assert await (await tasks.again.send()).wait(WAIT) == 2
    assert await (await tasks.on_loop.send()).wait(WAIT) == os.getpid()


async def test_a_plain_wrapper_of_a_coroutine_function_runs_to_its_end_in_the_child(app: Celeriac):
    value, pid = await (await tasks.awaited.send(3)).wait(WAIT)
    assert value == 4
    assert pid != os.getpid()


async def test_what_an_awaited_coroutine_returns_at_its_soft_limit_is_its_value(app: Celeriac):
    assert await (await tasks.partly.send(0)).wait(WAIT) == "the whole"
    assert await (await tasks.partly.send(60)).wait(WAIT) == "a part"


async def test_the_traceback_is_the_functions_own(app: Celeriac):
    failed = await tasks.fails.send()
    with pytest.raises(KeyError):
        await failed.wait(WAIT)
    record = await failed.info()
    assert record.traceback.count('process_tasks.py", line') == 1
    assert "celeriac" not in record.traceback.replace(tasks.__file__, "")
    aborted = await tasks.leaves.send()
    with pytest.raises(TaskAborted, match=r"SystemExit\(3,\)"):
        await aborted.wait(WAIT)


async def test_a_child_that_dies_hangs_or_leaves_takes_only_its_own_task_with_it(app: Celeriac):
    dying, hanging, leaving = await app.send_many(
        [tasks.dies.call(), tasks.hangs.call(), tasks.leaves.call()]
    )
    with pytest.raises(WorkerLost, match=r"signal 9 \(SIGKILL\)"):
        await dying.wait(WAIT)
    with pytest.raises(TimeLimitExceeded):
        await hanging.wait(WAIT)
    with pytest.raises(TaskAborted):
        await leaving.wait(WAIT)
    with pytest.raises(WorkerLost, match="exit code 0"):
        await (await tasks.vanishes.send()).wait(WAIT)
    value, _ = await (await tasks.square.send(3)).wait(WAIT)
    assert value == 9


async def test_a_child_that_is_killed_while_it_is_idle_is_replaced(app: Celeriac):
    _, idle = await (await tasks.square.send(3)).wait(WAIT)
    os.kill(idle, signal.SIGKILL)
    value = None
    while value is None:
        with suppress(WorkerLost):  # called in the moment of its death
            value, pid = await (await tasks.square.send(3)).wait(WAIT)
    assert value == 9
    assert pid != idle


async def test_a_task_that_a_child_cannot_import_is_refused_at_the_start():
    app = Celeriac("local", broker="memory://", backend="memory://")

    @app.task
    def local() -> None: ...

    with pytest.raises(ConfigError, match="local"):
        async with app.worker(pool="processes"):
            pass


async def test_the_soft_limit_is_raised_in_the_child_even_in_a_blocking_call(app: Celeriac):
    assert await (await tasks.sleeps.send()).wait(WAIT) == "told"


async def test_children_are_replaced_after_so_many_tasks_and_so_much_memory():
    async with tasks.app:
        async with tasks.app.worker(pool="processes", concurrency=1, max_tasks_per_child=2):
            pids = [(await (await tasks.square.send(1)).wait(WAIT))[1] for _ in range(4)]
            assert pids[0] == pids[1] != pids[2] == pids[3]
        async with tasks.app.worker(pool="processes", concurrency=1, max_memory_per_child=150_000):
            small = await (await tasks.grows.send(1)).wait(WAIT)
            assert await (await tasks.grows.send(200)).wait(WAIT) == small
            assert await (await tasks.grows.send(1)).wait(WAIT) != small


async def test_revoking_with_terminate_kills_the_running_process(app: Celeriac):
    result = await tasks.waits.send()
    async for record in result.watch():
        if record.status == "STARTED":
            await app.connections().revocations.add([result.id], terminate=True)
    assert record.status == "REVOKED"


@pytest.mark.parametrize("task", [tasks.holds, tasks.stays], ids=["cleans up", "does not leave"])
async def test_a_task_past_its_limit_may_clean_up_but_not_stay(task: Task[..., None], tmp_path: Path):
    gone = asyncio.Event()

    class Watching(Listener):
        def child_stopped(self, node: str, pid: int) -> None:
            gone.set()

    attachments = Attachments()
    attachments.listen(Watching())
    place = tmp_path / "place"
    async with tasks.app, Worker(tasks.app, pool="processes", concurrency=1, attachments=attachments):
        await (await tasks.square.send(1)).wait(WAIT)  # the child is there; the limit is for the task
        with pytest.raises(TimeLimitExceeded):
            await (await task.send(str(place))).wait(WAIT)
        async with asyncio.timeout(WAIT):
            await gone.wait()
        assert place.exists() is (task is tasks.stays)
        assert (await (await tasks.square.send(3)).wait(WAIT))[0] == 9


async def test_arguments_and_values_of_any_size_go_both_ways(app: Celeriac):
    large = "x" * 10_000_000
    assert await asyncio.gather(*[(await tasks.echo.send(large)).wait(WAIT) for _ in range(3)]) == [large] * 3
    assert await (await tasks.echo.send("small")).wait(WAIT) == "small"


async def test_a_short_call_does_not_wait_behind_a_long_one(app: Celeriac):
    long = await tasks.rests.send(60)
    short = [await tasks.square.send(n) for n in range(50)]
    assert [(await result.wait(WAIT))[0] for result in short] == [n * n for n in range(50)]
    assert (await long.info()).status == "PENDING"
    await app.connections().revocations.add([long.id], terminate=True)
    with pytest.raises(TaskRevoked):
        await long.wait(WAIT)


async def test_a_killed_child_takes_one_call_of_many_that_run(app: Celeriac):
    long = await tasks.rests.send(0.5)
    dying = await tasks.dies.send()
    with pytest.raises(WorkerLost):
        await dying.wait(WAIT)
    assert await long.wait(WAIT)


async def test_a_child_that_nobody_can_reach_any_more_is_ended(app: Celeriac):
    with pytest.raises(WorkerLost):
        await (await tasks.closes_everything.send()).wait(WAIT)


async def test_calls_go_on_when_the_process_that_starts_children_is_killed(app: Celeriac):
    running = await tasks.rests.send(60)
    server = await (await tasks.server_of_children.send()).wait(WAIT)
    assert server != os.getpid()
    os.kill(server, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        await running.wait(WAIT)
    assert await (await tasks.server_of_children.send()).wait(WAIT) not in (server, os.getpid())


async def test_spawned_children_are_programs_of_their_own():
    async with tasks.app, tasks.app.worker(pool="processes", concurrency=1, start_method="spawn"):
        value, pid = await (await tasks.square.send(7)).wait(WAIT)
        assert value == 49
        assert pid != os.getpid()
        with pytest.raises(WorkerLost, match=r"signal 9 \(SIGKILL\)"):
            await (await tasks.dies.send()).wait(WAIT)
        assert (await (await tasks.square.send(3)).wait(WAIT))[0] == 9


async def test_an_exception_comes_back_without_its_constructor(app: Celeriac):
    failed = await tasks.fails_with_http.send()
    with pytest.raises(RemoteError, match="HTTP 404"):  # to who reads the record; the worker knows more
        await failed.wait(WAIT)
    assert "HTTP HTTP" not in (await failed.info()).traceback
    sent = pickle.dumps(portable(tasks.Http(404)))
    made = tasks.Http.made
    error = restored(pickle.loads(sent))
    assert (type(error), str(error), error.args, error.code) == (tasks.Http, "HTTP 404", ("HTTP 404",), 404)
    assert tasks.Http.made == made


async def test_what_only_the_child_knows_arrives_by_its_text(app: Celeriac):
    with pytest.raises(Exception, match="lost") as caught:
        await (await tasks.fails_with_what_is_known_only_here.send()).wait(WAIT)
    assert "Strange" in repr(caught.value)
    with pytest.raises(EncodeError):
        await (await tasks.returns_what_is_known_only_here.send()).wait(WAIT)
    assert (await (await tasks.square.send(3)).wait(WAIT))[0] == 9


async def test_each_child_has_a_lifespan_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = tmp_path / "said"
    monkeypatch.setenv("CHILDREN_SAY", str(said))
    async with tasks.living, tasks.living.worker(pool="processes", concurrency=1, max_tasks_per_child=2):
        states = [await (await tasks.uses_it.send()).wait(WAIT) for _ in range(3)]
    first, second = states[0].split()[1], states[2].split()[1]
    assert states == [f"of {first}", f"of {first}", f"of {second}"]
    assert sorted(said.read_text().splitlines()) == sorted(
        f"{what} {pid}" for what in ("open", "closed") for pid in (first, second)
    )


async def test_a_child_whose_lifespan_raises_fails_its_call():
    async with tasks.refusing, tasks.refusing.worker(pool="processes", concurrency=1):
        with pytest.raises(WorkerLost, match="exit code 1"):
            await (await tasks.never_runs.send()).wait(WAIT)


async def test_a_lifespan_that_a_child_cannot_import_is_refused_at_the_start():
    app = Celeriac("local", broker="memory://", backend="memory://")

    @app.child_lifespan
    def local() -> Iterator[None]:
        yield

    with pytest.raises(ConfigError, match="top level of a module"):
        async with app.worker(pool="processes"):
            pass
    with pytest.raises(ConfigError, match="one yield"):
        app.child_lifespan(print)


async def test_listeners_hear_of_children():
    heard: list[tuple[str, str, int]] = []

    class Recorder(Listener):
        def child_started(self, node: str, pid: int) -> None:
            heard.append(("started", node, pid))

        def child_stopped(self, node: str, pid: int) -> None:
            heard.append(("stopped", node, pid))

    attachments = Attachments()
    attachments.listen(Recorder())
    worker = Worker(tasks.app, pool="processes", concurrency=1, name="w@host", attachments=attachments)
    async with tasks.app, worker:
        _, pid = await (await tasks.square.send(1)).wait(WAIT)
    assert heard == [("started", "w@host", pid), ("stopped", "w@host", pid)]


async def test_a_pool_can_be_resized_while_it_works():
    pool = Processes(tasks.app.tasks, limit=3)

    async def rest() -> int:
        message = TaskMessage(id="1", task=tasks.rests.name)
        return await pool.call(Call(tasks.rests, [0.3], {}, Context(message)))

    try:
        three = set(await asyncio.gather(*(rest() for _ in range(3))))
        pool.resize(1)
        one = {await rest() for _ in range(3)}
        assert len(three) == 3
        assert len(one) == 1
        assert one < three
        pool.resize(2)
        assert len(set(await asyncio.gather(*(rest() for _ in range(2))))) == 2
    finally:
        await pool.close()


async def test_each_kill_costs_one_call_at_the_most_and_nothing_hangs():
    pool = Processes(tasks.app.tasks, limit=4)
    lost, kills, children = 0, 0, set[int]()

    async def call(number: int) -> None:
        nonlocal lost
        message = TaskMessage(id=str(number), task=tasks.square.name)
        try:
            value, pid = await pool.call(Call(tasks.square, [number], {}, Context(message)))
        except WorkerLost:
            lost += 1
        else:
            assert value == number * number
            children.add(pid)

    async def calls(start: int) -> None:
        for number in range(start, start + 150):
            await call(number)

    running = [asyncio.create_task(calls(1000 * start)) for start in range(4)]
    try:
        while not all(task.done() for task in running):
            await asyncio.sleep(0.01)
            if children:
                with suppress(ProcessLookupError):
                    os.kill(children.pop(), signal.SIGKILL)
                    kills += 1
        await asyncio.gather(*running)
    finally:
        await pool.close()
    assert kills
    assert lost <= kills
