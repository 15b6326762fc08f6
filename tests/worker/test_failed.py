"""Tasks that failed for good: their messages are kept whole, and can be sent again."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac import Celeriac, Context, Retry, TaskError
from celeriac.contracts.set_aside import DeadLetter
from celeriac.monitor.again import RETRY_OF, Arguments, Refused, send_again
from celeriac.wire.envelope import Envelope
from celeriac.wire.task import TaskMessage, decode

WAIT = 60.0


async def kept(app: Celeriac, id: str) -> DeadLetter:
    """The entry of a task, which may come a moment after its result."""
    async with asyncio.timeout(WAIT):
        while not (found := await app.connections().broker.failed.find([id])):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    return found[0]


async def nothing_is_kept(app: Celeriac) -> bool:
    letters = await app.connections().broker.failed.list(10_000)
    return not [letter for letter in letters if letter.queue == app.settings.default_queue]


async def test_a_failed_task_is_kept_and_runs_again_with_the_same_arguments(app: Celeriac):
    seen = list[Any]()

    @app.task(name="pay")
    async def pay(ctx: Context, when: datetime, text: str, *, deep: dict[str, Any]) -> int:
        seen.append((when, text, deep, ctx.headers.get("tenant"), ctx.headers.get(RETRY_OF)))
        if len(seen) == 1:
            raise ValueError("no money")
        return len(seen)

    arguments: tuple[Any, ...] = (datetime(2026, 11, 29, tzinfo=UTC), "ä" * 50_000)
    deep = {"a": [1, None, {"b": "\x00"}]}
    async with app.worker():
        result = await pay.using(headers={"tenant": "x"}).send(*arguments, deep=deep)
        with pytest.raises((ValueError, TaskError), match="no money"):
            await result.wait(WAIT)
        letter = await kept(app, result.id)
        assert (letter.queue, letter.reason) == (app.settings.default_queue, "ValueError('no money')")
        new = await send_again(app, letter)
        assert await app.result(new).wait(WAIT) == 2
        assert not await app.connections().broker.failed.find([result.id])
    assert seen == [(*arguments, deep, "x", None), (*arguments, deep, "x", result.id)]


@pytest.mark.parametrize("places", ["memory", "redis"], indirect=True)
async def test_it_runs_again_with_changes_and_once_for_a_double_click(app: Celeriac):
    @app.task(name="half")
    async def half(number: int) -> float:
        return 10 / number

    async with app.worker():
        result = await half.send(0)
        with pytest.raises((ZeroDivisionError, TaskError)):
            await result.wait(WAIT)
        letter = await kept(app, result.id)
        new = await send_again(app, letter, Arguments([4], {}))
        assert await app.result(new).wait(WAIT) == 2.5
        with pytest.raises(Refused, match="sent again already"):
            await send_again(app, letter, Arguments([4], {}))


async def test_what_is_acknowledged_before_it_runs_is_kept_too(app: Celeriac):
    @app.task(name="once", delivery="at_most_once")
    async def once(text: str) -> None:
        raise ValueError(text)

    async with app.worker():
        result = await once.send("no")
        with pytest.raises((ValueError, TaskError)):
            await result.wait(WAIT)
        letter = await kept(app, result.id)
    assert isinstance(letter.envelope, Envelope)
    message = decode(letter.envelope, app.codecs)
    assert isinstance(message, TaskMessage)
    assert (message.id, message.args, letter.queue) == (result.id, ["no"], app.settings.default_queue)


async def test_only_what_failed_for_good_is_kept(app: Celeriac):
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="again", retry=Retry(on=(ValueError,), max_attempts=2, backoff=0.01))
    async def again(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise ValueError("try again")
        return ctx.attempt

    async with app.worker():
        assert await (await add.send(1, 2)).wait(WAIT) == 3
        assert await (await again.send()).wait(WAIT) == 2
    assert await nothing_is_kept(app)


@pytest.mark.parametrize("places", ["memory", "sqlite", "redis"], indirect=True)
async def test_the_setting_switches_it_off(places: tuple[str, str], unique: Callable[[str], str]):
    prefix = unique("off")
    async with Celeriac("off", *places, default_queue=prefix, key_prefix=f"{prefix}:", keep_failed=0) as app:

        @app.task(name="fail")
        async def fail() -> None:
            raise ValueError("no")

        async with app.worker():
            with pytest.raises((ValueError, TaskError)):
                await (await fail.send()).wait(WAIT)
        assert await nothing_is_kept(app)


@pytest.mark.parametrize("places", ["memory"], indirect=True)
async def test_of_a_task_that_was_retried_the_next_run_begins_anew(app: Celeriac):
    attempts = list[int]()

    @app.task(name="stubborn", retry=Retry(on=(ValueError,), max_attempts=2, backoff=0.01))
    async def stubborn(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if len(attempts) < 3:
            raise ValueError("no")
        return len(attempts)

    async with app.worker():
        result = await stubborn.send()
        with pytest.raises((ValueError, TaskError)):
            await result.wait(WAIT)
        assert await app.result(await send_again(app, await kept(app, result.id))).wait(WAIT) == 3
    assert attempts == [1, 2, 1]
