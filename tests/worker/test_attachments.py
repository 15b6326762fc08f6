"""What an app attaches to its workers: listeners that hear, lifespans that open and close."""

import asyncio
import logging

import pytest

from celeriac import Celeriac, ConfigError, Context, Listener, Retry


class Recorder(Listener):
    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def received(self, attempt):
        self.heard.append(("received", attempt.message.task))

    def started(self, attempt):
        self.heard.append(("started", attempt.message.task))

    def ended(self, attempt):
        self.heard.append(("ended", attempt.decision.state))

    def parked(self, attempt):
        self.heard.append(("parked", attempt.message.task))

    def declined(self, attempt):
        self.heard.append(("declined", attempt.decision.reason))

    def refused(self, attempt):
        self.heard.append(("refused", type(attempt.decision.error).__name__))

    def worker_starting(self, node):
        self.heard.append(("starting", node))

    def worker_ready(self, node):
        self.heard.append(("ready", node))

    def worker_stopping(self, node):
        self.heard.append(("stopping", node))

    def worker_stopped(self, node):
        self.heard.append(("stopped", node))


@pytest.fixture
def app() -> Celeriac:
    app = Celeriac("attached", broker="memory://", backend="memory://")

    @app.task(name="double")
    async def double(x: int) -> int:
        return 2 * x

    @app.task(name="fail")
    async def fail() -> None:
        raise ValueError("no")

    return app


async def test_a_listener_hears_what_happens_in_order(app: Celeriac):
    recorder = Recorder()
    app.listen(recorder)
    async with app.worker(name="w@host") as worker:
        await worker.ready()
        assert await (await app.send_task("double", [2])).wait(timeout=60) == 4
        with pytest.raises(ValueError, match="no"):
            await (await app.send_task("fail")).wait(timeout=60)
        expired = await app.send_task("double", [2], expires=-1)
        with pytest.raises(Exception, match="expired"):
            await expired.wait(timeout=60)
        unknown = await app.send_task("nobody")
        with pytest.raises(Exception, match="nobody"):
            await unknown.wait(timeout=60)
    assert recorder.heard == [
        ("starting", "w@host"),
        ("ready", "w@host"),
        ("received", "double"), ("started", "double"), ("ended", "SUCCESS"),
        ("received", "fail"), ("started", "fail"), ("ended", "FAILURE"),
        ("received", "double"), ("declined", "expired"),
        ("received", "nobody"), ("refused", "TaskNotFound"),
        ("stopping", "w@host"),
        ("stopped", "w@host"),
    ]  # fmt: skip


async def test_a_listener_that_raises_is_logged_once_and_hurts_nothing(
    app: Celeriac, caplog: pytest.LogCaptureFixture
):
    class Clumsy(Listener):
        def ended(self, attempt):
            raise RuntimeError("dropped it")

    recorder = Recorder()
    app.listen(Clumsy())
    app.listen(recorder)
    caplog.set_level(logging.ERROR, "celeriac.worker")
    async with app.worker():
        results = [await app.send_task("double", [n]) for n in range(3)]
        assert [await result.wait(timeout=60) for result in results] == [0, 2, 4]
    assert [heard for heard in recorder.heard if heard[0] == "ended"] == [("ended", "SUCCESS")] * 3
    assert len([record for record in caplog.records if "listener" in record.message]) == 1


def test_what_is_no_listener_is_refused(app: Celeriac):
    with pytest.raises(ConfigError, match=r"subclass of celeriac\.Listener"):
        app.listen(print)  # type: ignore[arg-type]


async def test_tasks_use_what_lifespans_opened_and_all_is_closed_in_reverse(app: Celeriac):
    order: list[str] = []

    @app.lifespan
    async def first():
        order.append("open first")
        yield {"pool": "a pool"}
        order.append("close first")

    @app.lifespan
    def second():
        order.append("open second")
        yield
        order.append("close second")

    @app.task(name="ask")
    async def ask(ctx: Context) -> str:
        return ctx.state["pool"]

    @app.task(name="ask.plainly")
    def ask_plainly(ctx: Context) -> str:
        return ctx.state["pool"]

    async with app.worker():
        for name in ("ask", "ask.plainly"):
            assert await (await app.send_task(name)).wait(timeout=60) == "a pool"
    assert order == ["open first", "open second", "close second", "close first"]


async def test_a_lifespan_ends_after_the_tasks_that_use_it(app: Celeriac):
    begun, closed = asyncio.Event(), asyncio.Event()

    @app.lifespan
    async def pool():
        yield {"closed": closed}
        closed.set()

    @app.task(name="slow")
    async def slow(ctx: Context) -> bool:
        begun.set()
        await asyncio.sleep(0.2)
        return ctx.state["closed"].is_set()

    async with app.worker():
        result = await app.send_task("slow")
        await begun.wait()
    assert closed.is_set()
    assert await result.wait(timeout=60) is False


async def test_a_worker_whose_lifespan_raises_does_not_start_and_closes_what_had_opened(app: Celeriac):
    closed: list[str] = []

    @app.lifespan
    async def opened():
        yield
        closed.append("opened")

    @app.lifespan
    async def broken():
        raise OSError("no database")
        yield

    with pytest.raises(OSError, match="no database"):
        async with app.worker():
            pytest.fail("it started")
    assert closed == ["opened"]


@pytest.mark.parametrize("function", [print, lambda: None, Retry])
def test_what_is_no_lifespan_is_refused(app: Celeriac, function: object):
    with pytest.raises(ConfigError, match="one yield"):
        app.lifespan(function)  # type: ignore[type-var]


async def test_a_lifespan_yields_a_mapping_or_nothing(app: Celeriac):
    @app.lifespan
    async def pool():
        yield "a pool"

    with pytest.raises(ConfigError, match="lifespan pool yielded 'a pool'"):
        async with app.worker():
            pytest.fail("it started")
