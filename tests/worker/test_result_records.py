"""What a result record cannot hold becomes text in it; the task, its retries and those who wait are none the worse."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celeriac, Context, Retry, chain, chord
from celeriac.errors import TaskNotFound, TaskRevoked
from celeriac.wire.content import SERIALIZERS

EVERY = tuple(SERIALIZERS)
SURROGATE = "cut \udcff short"


@pytest.fixture
def make(place: str, unique: Callable[[str], str]) -> Callable[..., Celeriac]:
    prefix = unique("records")
    return lambda **settings: Celeriac(
        "records",
        broker=place,
        backend=place,
        default_queue=prefix,
        key_prefix=f"{prefix}:",
        **{"accept_content": EVERY, "strict_arguments": False, **settings},
    )


async def said(sent: Any) -> Any:
    """What whoever waits is told: the value, or the exception."""
    [told] = await asyncio.gather((await sent).wait(timeout=60), return_exceptions=True)
    return told


async def test_arguments_that_an_extended_record_cannot_hold(make: Callable[..., Celeriac]):
    app = make(serializer="pickle", result_extended=True)

    @app.task(name="good")
    async def good(value: Any, *, by: Any = None) -> str:
        return repr(value)

    @app.task(name="bad")
    async def bad(value: Any) -> None:
        raise LookupError("no", value)

    @app.task(name="total")
    async def total(values: list[str]) -> list[str]:
        return values

    async with app, app.worker():
        sent = await good.send(1j, by={(1, 2): 3})
        assert await sent.wait(timeout=60) == "1j"
        [record] = await app.connections().backend.load([sent.id])
        assert record is not None
        assert (record.args, record.kwargs) == (["1j"], {"by": "{(1, 2): 3}"})
        failed = await said(bad.send(1j))
        assert (type(failed), failed.args) == (LookupError, ("no", "1j"))
        assert await said(chord([good.s(1j), good.s(2)], total.s()).send()) == ["1j", "2"]
        assert await app.connections().broker.dead.count() == 0


@pytest.mark.parametrize("serializer", EVERY)
async def test_an_exception_that_the_serializer_of_results_cannot_write(
    serializer: str, make: Callable[..., Celeriac]
):
    app = make(result_serializer=serializer)
    runs: list[int] = []

    @app.task(name="boom", retry=Retry(max_attempts=3, backoff=0.01))
    async def boom(last: str) -> str:
        runs.append(1)
        if len(runs) < 3 or last == "fails":
            raise LookupError("no order", uuid.UUID(int=1), SURROGATE)
        return "third time lucky"

    @app.task(name="mojibake")
    async def mojibake() -> None:
        raise ValueError(SURROGATE + "\0")

    async with app, app.worker():
        assert await said(boom.send("works")) == "third time lucky"
        failed = await said(boom.send("fails"))
        assert type(failed) is LookupError
        assert failed.args[0] == "no order"
        assert "00000000-0000-0000-0000-000000000001" in str(failed.args[1])
        assert failed.args[2].startswith("cut ")
        assert str(await said(mojibake.send())).startswith("cut ")
        assert await app.connections().broker.dead.count() == 0


@pytest.mark.parametrize("written", EVERY)
async def test_a_reader_tells_a_result_by_its_bytes(written: str, place: str, make: Callable[..., Celeriac]):
    values = [{}, [], 0, 7, "7", "x: 1", "- a", None, -1, True, {"a": {"k": [1.5]}}, "\x80", "é"]
    writer = make(result_serializer=written)

    @writer.task(name="give")
    async def give(index: int) -> Any:
        return values[index]

    @writer.task(name="total")
    async def total(parts: list[Any]) -> Any:
        return parts

    every = range(len(values))
    async with writer, writer.worker():
        sent = [await give.send(index) for index in every]
        assert [await each.wait(timeout=60) for each in sent] == values
        assert await said(chord([give.s(index) for index in every], total.s()).send()) == values
        for read in EVERY if place != "memory://" else ():
            async with make(result_serializer=read) as reader:
                # A lone digit of JSON is a number of msgpack too: whoever reads it goes by their own setting.
                for each, value in zip(sent, values, strict=True):
                    if type(value) is not int or "msgpack" not in (read, written) or read == written:
                        assert await reader.result(each.id).wait(timeout=60) == value


async def test_every_run_of_a_retried_task_gets_the_arguments_that_were_sent(make: Callable[..., Celeriac]):
    app = make()
    seen: list[Any] = []

    @app.task(name="work")
    async def work(ctx: Context, given: Any) -> str:
        seen.append(given)
        if ctx.attempt < 3:
            ctx.retry(countdown=0.01)
        return "done"

    async with app, app.worker():
        for serializer, value in (
            ("pickle", {1: (2, 3)}),
            ("pickle", {(1, 2): 1j}),
            ("msgpack", {1: b"x"}),
            ("yaml", {1, 2}),
            ("json", {"a": [1, None]}),
        ):
            seen.clear()
            assert await said(work.using(serializer=serializer, compression="gzip").send(value)) == "done"
            assert seen == [value] * 3


@pytest.mark.parametrize("protocol", [1, 2])
async def test_what_follows_a_step_that_did_not_run_through_is_told_so(
    protocol: int, make: Callable[..., Celeriac]
):
    app = make(protocol=protocol)

    @app.task(name="fail")
    async def fail() -> None:
        raise ValueError("boom")

    @app.task(name="same")
    async def same(value: Any) -> Any:
        return value

    @app.task(name="ignored")
    async def ignored(ctx: Context) -> None:
        ctx.ignore()

    after = chain(same.s(), same.s())
    async with app, app.worker():
        assert str(await said(chain(fail.s(), same.s(), after).send())) == "boom"
        assert isinstance(await said(chain(same.s(1).set(expires=-1), after).send()), TaskRevoked)
        assert isinstance(await said(chain(app.signature("nope"), after).send()), TaskNotFound)
        for broken in (chain(fail.s(), same.s()), chain(ignored.s(), same.s())):
            assert "Dependency" in str(await said(chord([broken, same.s(2)], chain(same.s(), after)).send()))
        inner = chord([fail.s(), same.s(2)], same.s())
        assert "Dependency" in str(await said(chord([chain(inner, same.s()), same.s(2)], same.s()).send()))
        nested = chain(same.s(1), chord([same.s(), same.s()], chain(same.s(), same.s())), same.s())
        assert await said(nested.send()) == [1, 1]


async def test_the_body_of_a_chord_is_sent_in_the_protocol_of_its_parts(make: Callable[..., Celeriac]):
    app = make(protocol=1)

    @app.task(name="part")
    async def part() -> int:
        return 1

    @app.task(name="body")
    async def body(ctx: Context, values: list[int]) -> list[int]:
        return [*values, ctx.message.protocol]

    async with app, app.worker():
        assert await said(chord([part.s(), part.s()], body.s()).send()) == [1, 1, 1]
