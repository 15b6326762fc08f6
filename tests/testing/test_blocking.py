"""A worker inside a test that blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from celeriac import Celeriac, Context, Retry, Signature, chain, chord, group
from celeriac.errors import ConfigError
from celeriac.testing.blocking import BlockingWorker
from celeriac.testing.faults import Faults

app = Celeriac("blocking", broker="redis://nobody.invalid", backend="redis://nobody.invalid")
ran: list[tuple[str, int]] = []


@app.task
def add(x: int, y: int) -> int:
    ran.append(("add", threading.get_ident()))
    return x + y


@app.task
async def double(x: int) -> int:
    return 2 * x


@app.task
async def noted(x: int) -> int:
    ran.append(("noted", x))
    return x


@app.task
def total(values: list[int]) -> int:
    return sum(values)


@app.task
def deep(level: int) -> int:
    """Send the next level from inside the task, and wait for it."""
    return 0 if level == 0 else 1 + deep.delay(level - 1).get(timeout=60)


@app.task
def fire_and_forget(level: int) -> str:
    if level:
        fire_and_forget.delay(level - 1)
    ran.append(("forget", level))
    return "sent"


@app.task
def boom() -> None:
    raise ValueError("no such thing")


@app.task(retry=Retry(on=(OSError,), backoff=600.0))
def flaky(ctx: Context) -> int:
    if ctx.retries == 0:
        raise OSError("no net")
    return ctx.retries


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def test_delay_returns_when_the_task_has_run_in_this_very_thread() -> None:
    with app.testing() as tasks:
        result = add.delay(1, 2)
        assert ran == [("add", threading.get_ident())]
        assert result.get(timeout=60) == 3
        assert [(sent.task, sent.args) for sent in tasks.sent] == [(add.name, [1, 2])]
        assert double.delay(4).get(timeout=60) == 8
        assert add.apply_async((1, 1), queue="elsewhere").get(timeout=60) == 2
        assert app.delay(add.name, 5, 5).get(timeout=60) == 10


def test_workflows() -> None:
    with app.testing():
        assert chain(add.s(1, 2), double.s(), add.s(1)).delay().get(timeout=60) == 7
        assert chord(group(add.s(n, n) for n in range(3)), total.s()).delay().get(timeout=60) == 6
        assert group(add.s(n, 1) for n in range(3)).delay().get(timeout=60) == [1, 2, 3]


def test_tasks_inside_of_tasks() -> None:
    with app.testing():
        assert deep.delay(12).get(timeout=60) == 12
        fire_and_forget.delay(3)
        # As with Celery's eager tasks: the inner ones have ended when the outer one goes on.
        assert ran == [("forget", level) for level in range(4)]


def test_failures_reach_the_caller() -> None:
    with app.testing():
        result = boom.delay()
        assert result.failed()
        with pytest.raises(ValueError, match="no such thing"):
            result.get(timeout=60)


def test_what_waits_is_run_when_it_is_asked_for() -> None:
    with app.testing() as tasks:
        result = flaky.delay()
        later = add.apply_async((1, 2), countdown=3600)
        assert (result.state, later.state) == ("RETRY", "PENDING")
        assert tasks.skip_waits() == 2
        assert (result.get(timeout=60), later.get(timeout=60)) == (1, 3)


def test_without_eager_tasks_run_when_the_test_waits() -> None:
    with app.testing(eager=False) as tasks:
        first = add.delay(1, 2)
        assert ran == []
        second = add.delay(3, 4)
        assert first.get(timeout=60) == 3
        tasks.drain()
        assert len(ran) == 2
        assert second.ready()
        add.delay(5, 6)
    assert len(ran) == 3  # the block ends when all has run


@pytest.mark.parametrize("task", [add.s(1, 2), noted.s(3)], ids=["function", "coroutine"])
def test_without_eager_nothing_runs_until_the_test_asks(task: Signature[int]) -> None:
    with app.testing(eager=False) as tasks:
        first, second = task.delay(), task.delay()
        later = task.set(countdown=3600).delay()
        # Each of these blocks for the background loop, which could have run what waits meanwhile.
        assert [first.state, second.ready(), later.state] == ["PENDING", False, "PENDING"]
        assert tasks.skip_waits() == 1
        assert not any(result.ready() for result in (first, second, later))
        second.revoke()
        assert ran == []
        assert first.get(timeout=60) == 3
        tasks.drain()
        assert len(ran) == 2
        assert second.state == "REVOKED"
        # What ended a moment ago leaves nothing open.
        left = task.delay()
        assert not left.ready()
        assert len(ran) == 2


def test_without_eager_a_task_waits_for_what_it_sends() -> None:
    with app.testing(eager=False):
        assert deep.delay(3).get(timeout=60) == 3


def test_from_several_threads() -> None:
    values: list[int] = []
    with app.testing():
        threads = [
            threading.Thread(target=lambda n=n: values.append(add.delay(n, 1).get(timeout=60)))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(values) == [1, 2, 3, 4]


def test_faults() -> None:
    faults = Faults().fail("store", times=2).fail("ack", "after")
    with app.testing(faults=faults):
        assert add.delay(1, 2).get(timeout=60) == 3
    assert len(ran) == 1
    assert faults.passed["store", "before"] == 3


def test_the_app_is_as_before_afterwards() -> None:
    with pytest.raises(KeyError, match="the test's own"), app.testing():
        raise KeyError("the test's own")
    assert app.broker_url == "redis://nobody.invalid"
    with app.testing():
        assert add.delay(1, 2).get(timeout=60) == 3


async def test_a_coroutine_is_told_what_to_use() -> None:
    with pytest.raises(ConfigError, match="async with running"), app.testing():
        pass


def test_the_fixture(celeriac_testing: Callable[..., BlockingWorker], celeriac_app: Celeriac) -> None:
    tasks = celeriac_testing(app)
    add.delay(1, 2)
    assert len(tasks.sent) == 1

    @celeriac_app.task
    def own() -> str:
        return "own"

    celeriac_testing(celeriac_app, eager=False)
    assert own.delay().get(timeout=60) == "own"
