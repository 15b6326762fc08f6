"""Blocking calls: for code without an event loop, and for code that has one and blocks all the same."""

import asyncio
import os
import subprocess
import sys
import threading
import time
import traceback

import pytest

from celeriac import ArgumentError, BrokerUnavailable, Celeriac, ResultTimeout
from celeriac.client.blocking import BackgroundLoop


def add(x: int, y: int) -> int:
    return x + y


def fail() -> None:
    raise LookupError("no such thing")


@pytest.fixture
def app(tmp_path):
    return Celeriac("shop", broker=f"sqlite:///{tmp_path}/shop.db")


@pytest.fixture
def background():
    loop = BackgroundLoop()
    yield loop
    loop.stop()


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//", "postgresql://127.0.0.1:1/shop"]
)
def test_an_outage_is_one_error_that_names_the_url_and_what_to_do(url):
    task = Celeriac("shop", url).task(add)
    with pytest.raises(
        BrokerUnavailable, match=r"127\.0\.0\.1:1.*start the server, or correct the URL"
    ) as caught:
        task.delay(1, 2)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback") == 1
    assert len(shown.splitlines()) < 25, shown


async def test_the_cause_of_an_outage_is_a_line_of_the_driver():
    async with Celeriac("shop", "redis://127.0.0.1:1/0") as app:
        with pytest.raises(BrokerUnavailable) as caught:
            await app.send_task("add")
    cause = caught.value.__cause__
    assert cause is not None
    assert (cause.__traceback__, cause.__cause__, cause.__context__) == (None, None, None)


def test_send_run_get(app):
    task, failing = app.task(add), app.task(fail)
    worker = app.worker(concurrency=4)
    worker.start()
    try:
        result = task.delay(2, 3)
        assert result.get(timeout=60) == 5
        assert (result.ready(), result.state, result.successful()) == (True, "SUCCESS", True)
        assert task.apply_async((2,), {"y": 4}, priority=3).get(timeout=60) == 6
        assert task.using(priority=1).delay(1, y=1).get(timeout=60) == 2
        assert app.delay(task.name, 5, y=5).get(timeout=60) == 10
        assert [r.get(timeout=60) for r in app.delay_many([task.call(n, n) for n in range(5)])] == [
            0,
            2,
            4,
            6,
            8,
        ]
        failed = failing.delay()
        with pytest.raises(LookupError, match="no such thing"):
            failed.get(timeout=60)
        assert (failed.failed(), "fail" in failed.traceback) == (True, True)
        again = app.result(result.id)
        assert again.get(timeout=60) == 5
        again.forget()
        assert app.result(result.id).state == "PENDING"
    finally:
        worker.stop()


def test_a_get_that_takes_too_long(app):
    with pytest.raises(ResultTimeout, match=r"within 0\.05 s"):
        app.delay("nobody.runs.this").get(timeout=0.05)


def test_wrong_arguments_are_refused_where_they_are_given(app):
    with pytest.raises(ArgumentError):
        app.task(add).delay("x", 1)


async def test_delay_in_a_running_loop_blocks_it_and_does_not_deadlock(app):
    result = app.task(add).delay(1, 2)
    assert await app.connections().broker.depth("celery") == 1
    await app.close()
    assert result.id


def test_many_threads_share_the_loop(app):
    task = app.task(add)
    ids = []
    threads = [
        threading.Thread(target=lambda: ids.extend(task.delay(1, 1).id for _ in range(20))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 160


def test_the_loop_starts_once_and_again_after_a_stop(background):
    async def thread_name():
        return threading.current_thread().ident

    first = background.run(thread_name())
    assert background.run(thread_name()) == first
    background.stop()
    background.stop()
    assert background.run(thread_name()) is not None


def test_what_the_coroutine_raises_is_raised(background):
    async def failing():
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        background.run(failing())


def test_blocking_the_background_loop_itself_is_refused(background):
    async def inner():
        background.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="background loop"):
        background.run(inner())


def test_stopping_cancels_what_runs_and_closes_generators(background):
    ended = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def start():
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return task

    background.run(start())
    background.stop()
    assert ended == ["task"]


def test_a_process_that_forks_after_sending_still_sends(redis_server, queue, tmp_path):
    """Parent and child send before and after the fork, on the embedded default and on Redis."""
    for broker in (redis_server.url(), f"sqlite:///{tmp_path}/fork.db"):
        app = Celeriac("shop", broker=broker, backend="disabled://")
        app.delay_many([app.call("before", queue=queue)])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(3):
                    app.call("child")
                    app.delay_many([app.call("child", queue=queue)])
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        app.delay_many([app.call("after", queue=queue)])

        async def names(app=app):
            async with app:
                return [envelope.headers["task"] for envelope in await app.connections().broker.peek(queue)]

        assert asyncio.run(names()) == ["before", "child", "child", "child", "after"]


def program(text, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, **environment},
    )


SENDS = """
import sys
from celeriac import Celeriac
app = Celeriac("shop", broker=sys.argv[1], backend="disabled://")
print(app.delay("x").id)
"""


def test_a_program_that_sent_ends_at_once_and_without_a_word(redis_url, tmp_path):
    for broker in (f"sqlite:///{tmp_path}/a.db", redis_url):
        ended = program(SENDS, broker)
        assert (ended.returncode, ended.stderr) == (0, "")


WAITS = """
import os, signal, sys, threading
from celeriac import Celeriac
app = Celeriac("shop", broker=sys.argv[1])
result = app.delay("nobody.runs.this")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with SIGINT ignored
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    result.get(timeout=60)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_ends_a_wait_at_once(tmp_path):
    before = time.monotonic()
    ended = program(WAITS, f"sqlite:///{tmp_path}/a.db")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "interrupted\n", "")
    assert time.monotonic() - before < 30


def test_publishing_to_a_dead_broker_raises_in_time_the_first_and_the_second_time(own_redis):
    """A closed port, and a server that hangs."""
    app = Celeriac("shop", broker=own_redis.url(), backend="disabled://", publish_timeout=0.5)
    own_redis.kill()
    for _ in range(2):
        before = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            app.delay("x")
        assert time.monotonic() - before < 4.5  # the usual limit is 5 s
    own_redis.start()
    app.delay("x")
    own_redis.pause()
    try:
        for _ in range(2):
            before = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                app.delay("x")
            assert time.monotonic() - before < 4.5  # the usual limit is 5 s
    finally:
        own_redis.resume()
    app.delay("x")
