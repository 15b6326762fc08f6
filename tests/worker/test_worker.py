"""Whole workers, on every broker."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from celeriac import (
    ArgumentError,
    BrokerError,
    Celeriac,
    ConfigError,
    Context,
    RemoteError,
    ResultTimeout,
    Retry,
    TaskNotFound,
)
from celeriac.errors import BackendError, EncodeError, TaskAborted
from celeriac.testing.faults import Faults
from celeriac.testing.worker import running
from celeriac.wire.envelope import Envelope, Route
from tests.worker.letters import letters_of

WAIT = 60.0


async def test_coroutines_run_on_the_loop_and_functions_in_threads(app: Celeriac):
    @app.task
    async def on_loop(x: int) -> tuple[int, str]:
        return x + 1, threading.current_thread().name

    @app.task
    def in_thread(x: int) -> tuple[int, str]:
        return x + 2, threading.current_thread().name

    async with app.worker(concurrency=4):
        value, thread = await (await on_loop.send(1)).wait(WAIT)
        assert (value, thread) == (2, threading.current_thread().name)
        value, thread = await (await in_thread.send(1)).wait(WAIT)
        assert value == 3
        assert thread != threading.current_thread().name


async def test_none_is_a_value(app: Celeriac):
    @app.task
    async def nothing() -> None:
        return None

    async with app.worker():
        assert await (await nothing.send()).wait(WAIT) is None


async def test_a_result_of_a_task_that_was_queued_before_the_worker_started(app: Celeriac):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    result = await add.send(2, 3)
    async with app.worker():
        assert await result.wait(WAIT) == 5


async def test_the_failure_reaches_the_caller_as_its_own_exception(app: Celeriac):
    @app.task
    def fails() -> None:
        raise KeyError("this one")

    async with app.worker():
        with pytest.raises(KeyError, match="this one"):
            await (await fails.send()).wait(WAIT)


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_an_exception_that_would_end_a_process_does_not_end_the_worker(
    app: Celeriac, ending: type[BaseException], kind: str
):
    runs = []

    @app.task(retry=Retry(backoff=0.01))
    async def coroutine() -> None:
        runs.append(1)
        raise ending("out")

    @app.task(retry=Retry(backoff=0.01))
    def function() -> None:
        runs.append(1)
        raise ending("out")

    @app.task
    async def after() -> str:
        return "still here"

    async with app.worker():
        task = coroutine if kind == "coroutine" else function
        with pytest.raises(TaskAborted, match=ending.__name__):
            await (await task.send()).wait(WAIT)
        assert await (await after.send()).wait(WAIT) == "still here"
    assert runs == [1]  # to leave is no fault that another run would mend


async def test_unwritable_and_recursive_exceptions_and_values_are_failures(app: Celeriac):
    class Nasty(Exception):
        def __init__(self) -> None:
            super().__init__(self, lambda: None)

        def __str__(self) -> str:
            raise ValueError("no text")

        __repr__ = __str__

    @app.task
    async def nasty() -> None:
        raise Nasty

    @app.task
    async def unwritable() -> Any:
        return {"lock": threading.Lock()}

    @app.task
    async def endless() -> Any:
        value: list[Any] = []
        value.append(value)
        return value

    async with app.worker():
        with pytest.raises((RemoteError, Nasty)):
            await (await nasty.send()).wait(WAIT)
        for task in (unwritable, endless):
            with pytest.raises(EncodeError):
                await (await task.send()).wait(WAIT)


async def test_an_unknown_task_is_a_failure_for_the_caller_and_a_dead_letter(app: Celeriac):
    async with app.worker() as worker:
        with pytest.raises(TaskNotFound, match=r"no\.such"):
            await (await app.send_task("no.such", [1])).wait(WAIT)
    assert worker.tally.refused == 1
    [letter] = await letters_of(app)
    assert "no.such" in letter.reason


async def test_the_worker_survives_any_message_and_keeps_it(app: Celeriac):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    broker, queue = app.connections().broker, app.settings.default_queue
    route = Route(queue, queue=queue)
    odd = [
        Envelope(body=b"\xff\xfe", content_type="application/json", headers={"task": "x", "id": "1"}),
        Envelope(
            body=b"[[1], {}, null]",
            content_type="application/x-python-serialize",
            headers={"task": "x", "id": "2"},
        ),
        Envelope(
            body=b"[1]", content_type="application/json", content_encoding="utf-8", headers={"task": "x"}
        ),
        Envelope(body=b"{}", content_type=None),
        Envelope(
            body=b'[[1], {"x": 1}, {"chain": 7}]',
            content_type="application/json",
            headers={"task": "x", "id": []},
        ),
    ]
    for envelope in odd:
        await broker.publish(envelope, route)
    async with app.worker() as worker:
        assert await (await add.send(2, 3)).wait(WAIT) == 5
    assert worker.tally.refused == len(odd)
    assert len(await letters_of(app)) == len(odd)


@pytest.mark.parametrize("places", ["redis"], indirect=True)
async def test_what_follows_and_cannot_be_sent_is_a_failure_for_the_caller_and_a_dead_letter(app: Celeriac):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app.worker():
        nowhere = add.s(1).set(exchange="nowhere", routing_key="nobody")
        result = await (add.s(1, 2) | add.s(3)).link(nowhere).send()
        with pytest.raises(BrokerError, match="no queue is bound to exchange 'nowhere'"):
            await result.wait(WAIT)
    [letter] = await app.connections().broker.dead.list()
    assert "the worker failed" in letter.reason


@pytest.mark.parametrize("places", ["memory"], indirect=True)
async def test_a_message_on_which_the_worker_itself_fails_is_kept(
    app: Celeriac, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the worker")

    dead = app.connections().broker.dead
    monkeypatch.setattr("celeriac.worker.admission.decode", fail)
    async with app.worker():
        await app.send_task("any")
        async with asyncio.timeout(WAIT):
            while not await dead.count():  # noqa: ASYNC110 - nobody is told of a dead letter
                await asyncio.sleep(0.01)
    [letter] = await dead.list()
    assert "a fault of the worker" in letter.reason


async def test_a_wrong_argument_is_a_failure_that_names_it(app: Celeriac):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    async with app.worker():
        with pytest.raises(ArgumentError, match="'y'"):
            await add.send(1, "two")  # type: ignore[arg-type]
        stranger = Celeriac(broker=app.connections().broker, backend=app.connections().backend)
        options = {"queue": app.settings.default_queue}
        with pytest.raises(TypeError, match="'y'"):
            await (await stranger.send_task("add", [1, "two"], **options)).wait(WAIT)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="y"):
            await (await stranger.send_task("add", [1], **options)).wait(WAIT)  # type: ignore[arg-type]


async def test_the_context_knows_the_call(app: Celeriac):
    @app.task
    async def tell(ctx: Context, x: int) -> dict[str, Any]:
        ctx.logger.info("hello")
        return {"id": ctx.id, "task": ctx.task, "args": ctx.args, "headers": ctx.headers, "queue": ctx.queue}

    async with app.worker():
        result = await tell.using(task_id="my-id", headers={"tenant": "a"}).send(7)
        known = await result.wait(WAIT)
    assert result.id == "my-id"
    assert known == {
        "id": "my-id",
        "task": tell.name,
        "args": [7],
        "headers": {"tenant": "a"},
        "queue": app.settings.default_queue,
    }


async def test_progress_is_seen_and_comes_before_the_value(app: Celeriac):
    go_on = asyncio.Event()

    @app.task
    async def long(ctx: Context) -> str:
        ctx.progress(1, 2, "half")
        await go_on.wait()
        return "done"

    @app.task
    def long_in_thread(ctx: Context) -> str:
        ctx.progress(1, 2)
        return "done"

    async with app.worker():
        states = []
        async for record in (await long.send()).watch():
            states.append((record.status, record.result))
            if record.status == "PROGRESS":
                go_on.set()
        assert ("PROGRESS", {"current": 1, "total": 2, "message": "half"}) in states
        assert states[-1] == ("SUCCESS", "done")
        result = await long_in_thread.send()
        assert await result.wait(WAIT) == "done"
        assert (await result.info()).status == "SUCCESS"


async def test_track_started_tells_where(app: Celeriac):
    release = asyncio.Event()

    @app.task(track_started=True)
    async def slow() -> None:
        await release.wait()

    async with app.worker(name="here@host"):
        async for record in (await slow.send()).watch():
            if record.status == "STARTED":
                assert record.result["hostname"] == "here@host"
                release.set()
        assert record.status == "SUCCESS"


async def test_ignore_result_stores_nothing(app: Celeriac):
    ran = asyncio.Event()

    @app.task(ignore_result=True)
    async def quiet() -> int:
        ran.set()
        return 1

    async with app.worker():
        result = await quiet.send()
        await ran.wait()
    assert await app.connections().backend.load([result.id]) == [None]


async def test_a_task_sent_from_inside_a_task_is_its_child(app: Celeriac):
    @app.task
    async def child(ctx: Context) -> list[str | None]:
        return [ctx.parent_id, ctx.root_id]

    @app.task
    async def parent() -> str:
        return (await child.send()).id

    @app.task
    def parent_in_thread() -> str:
        return child.delay().id

    async with app.worker():
        for task in (parent, parent_in_thread):
            if task is parent_in_thread and app.broker_url.startswith("memory"):
                continue  # a blocking call has a loop, and so a memory, of its own
            result = await task.send()
            child_id = await result.wait(WAIT)
            assert await app.result(child_id).wait(WAIT) == [result.id, result.id]
            assert (await result.info()).children == [[[child_id, None], None]]


async def test_link_and_link_error_are_sent_on(app: Celeriac):
    got: asyncio.Queue[Any] = asyncio.Queue()

    @app.task(name="note")
    async def note(*values: Any) -> None:
        got.put_nowait(list(values))

    @app.task
    async def add(x: int, y: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x + y

    @app.task(name="elsewhere")
    async def elsewhere(task_id: str) -> None:
        got.put_nowait(task_id)

    def signature(name: str, *args: Any) -> dict[str, Any]:
        options = {"queue": app.settings.default_queue}
        return {"task": name, "args": list(args), "kwargs": {}, "options": options, "immutable": False}

    async with app.worker():
        await (await add.using(link=signature("note", "tail")).send(1, 2)).wait(WAIT)
        assert await asyncio.wait_for(got.get(), WAIT) == [3, "tail"]
        failing = await add.using(link_error=signature("elsewhere")).send(-1, 2)
        assert await asyncio.wait_for(got.get(), WAIT) == failing.id
        await add.using(link_error=signature("note")).send(-1, 2)
        request, error, traceback = await asyncio.wait_for(got.get(), WAIT)
        assert isinstance(request, Context)
        assert isinstance(error, ValueError)
        assert "negative" in traceback


async def test_an_object_with_a_run_method_carries_its_dependencies(app: Celeriac):
    class Greeter:
        def __init__(self, greeting: str) -> None:
            self.greeting = greeting

        def run(self, name: str) -> str:
            return f"{self.greeting}, {name}"

    app.register("greet", Greeter("hello"))
    async with app.worker():
        assert await (await app.send_task("greet", ["world"])).wait(WAIT) == "hello, world"


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": "5"},
        {"pool": "gevent"},
        {"queues": "celery"},
        {"queues": [""]},
        {"name": "a@b@c"},
        {"grace": -1},
    ],
)
def test_what_a_worker_cannot_be_made_with_is_named(wrong: dict[str, Any]):
    [(setting, value)] = wrong.items()
    with pytest.raises(ConfigError, match=setting) as refused:
        Celeriac("wrong", "memory://").worker(**wrong)
    assert str(value) in str(refused.value)


async def test_log_lines_carry_id_and_name(app: Celeriac, caplog: pytest.LogCaptureFixture):
    @app.task(name="speak")
    async def speak(ctx: Context) -> None:
        ctx.logger.info("a word")

    caplog.set_level(logging.INFO, "celeriac")
    async with app.worker():
        result = await speak.send()
        await result.wait(WAIT)
    told = [r for r in caplog.records if getattr(r, "task_id", None) == result.id]
    assert {r.name for r in told} == {"celeriac.worker", "celeriac.task"}
    assert {getattr(r, "task_name", None) for r in told} == {"speak"}


async def test_waiting_says_what_was_waited_for(app: Celeriac):
    result = await app.send_task("nobody.listens")
    with pytest.raises(ResultTimeout, match=rf"nobody\.listens.*{result.id}"):
        await result.wait(0.05)


async def test_what_cannot_be_set_aside_just_now_is_set_aside_later(celeriac_app: Celeriac):
    """As where the user of an ACL loses a permission for a while: it must not stay held, with nobody at it."""

    @celeriac_app.task
    async def fine() -> None: ...

    faults = Faults().fail("store", error=BackendError("denied"), times=2)
    async with running(celeriac_app, faults=faults.fail("bury", error=BrokerError("denied"), times=2)):
        result = await fine.send()
        with pytest.raises(BackendError, match="denied"):
            await result.wait(WAIT)
        assert await celeriac_app.connections().broker.dead.count() == 1
