"""Workflows from sending to value, on every broker and result store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import Any

import pytest

from celeriac import (
    BackendUnavailable,
    Celeriac,
    ChordError,
    ConfigError,
    Context,
    GroupResult,
    TaskRevoked,
    chain,
    chord,
    group,
    workflow_progress,
)
from celeriac.canvas.advance import Part
from celeriac.errors import MalformedMessage
from celeriac.wire.result import SUCCESS
from celeriac.wire.signature import write
from tests.servers import RedisServer
from tests.worker.letters import letters_of

TIMEOUT = 60.0


class Kitchen:
    """Tasks, and what they left behind."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.ran: list[str] = []
        self.failures: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.seen: asyncio.Queue[Any] = asyncio.Queue()
        self.add = app.register("add", self._add)
        self.total = app.register("total", self._total)
        self.same = app.register("same", self._same)
        self.fail = app.register("fail", self._fail)
        self.note = app.register("note", self._note)
        self.alarm = app.register("alarm", self._alarm)
        self.grow = app.register("grow", self._grow)
        self.become = app.register("become", self._become)
        self.pieces = app.register("pieces", self._pieces)
        self.late = app.register("late", self._late)
        app.register("refuse", self._refuse)

    async def _add(self, *numbers: int) -> int:
        self.ran.append("add")
        return sum(numbers)

    def _total(self, numbers: list[int]) -> int:
        self.ran.append("total")
        return sum(numbers)

    async def _same(self, value: Any) -> Any:
        self.ran.append("same")
        return value

    async def _fail(self, *given: Any) -> None:
        raise ValueError("spoiled")

    async def _note(self, value: Any) -> None:
        self.seen.put_nowait(value)

    async def _alarm(self, request: Any, error: BaseException, traceback: str) -> None:
        self.failures.put_nowait((request.id, repr(error)))

    async def _grow(self, ctx: Context, number: int) -> int:
        ctx.add_to_chord(self.add.s(number, 1), self.add.s(number) | self.add.s(2))
        return number

    async def _become(self, ctx: Context, number: int) -> None:
        ctx.replace(group(self.add.s(number, 1), self.add.s(number, 2)) | self.total.s())

    async def _pieces(self, ctx: Context, number: int) -> None:
        ctx.replace(group(self.add.s(number, 1), self.add.s(number, 2)))

    async def _refuse(self, ctx: Context, number: int) -> None:
        ctx.reject(f"{number} is not for me")

    async def _late(self, ctx: Context, number: int) -> int:
        if ctx.retries < 1:
            ctx.retry(countdown=0)
        return number


@pytest.fixture
async def kitchen(app: Celeriac) -> AsyncIterator[Kitchen]:
    made = Kitchen(app)
    async with app.worker():
        yield made


async def test_a_chain(kitchen: Kitchen):
    result = await (kitchen.add.s(1, 2) | kitchen.add.s(10) | kitchen.add.si(5)).send()
    assert await result.wait(TIMEOUT) == 5
    assert await result.parent.wait() == 13
    assert await result.parent.parent.wait() == 3
    assert await workflow_progress(result) == type(await workflow_progress(result))(3, 3, 0)


async def test_a_group(kitchen: Kitchen):
    result = await group(kitchen.add.s(n, n) for n in range(10)).send()
    assert isinstance(result, GroupResult)
    ended = sorted([await one.wait() async for one in result])
    assert ended == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert await result.wait(TIMEOUT) == ended
    assert (await result.progress()).succeeded == len(result) == 10


async def test_a_chord_and_what_follows(kitchen: Kitchen):
    workflow = group(kitchen.add.s(n, n) for n in range(5)) | kitchen.total.s() | kitchen.add.s(1)
    result = await workflow.send()
    assert await result.wait(TIMEOUT) == 21
    assert kitchen.ran.count("total") == 1
    assert await result.parent.parent.wait() == [0, 2, 4, 6, 8]


async def test_everything_nested(kitchen: Kitchen):
    k = kitchen
    workflow = chain(
        k.add.s(1),
        group(k.add.s(1) | group(k.add.s(1), k.add.s(2)), chord([k.add.s(5), k.late.s()], k.same.s())),
        group(k.same.s(), k.same.s()),
        k.same.s(),
    )
    assert await (await workflow.send()).wait(TIMEOUT) == [[[3, 4], [6, 1]]] * 2


@pytest.mark.parametrize(("members", "value"), [([], []), ([4], [4])])
async def test_chords_of_nothing_and_of_one(kitchen: Kitchen, members: list[int], value: list[int]):
    workflow = chord([kitchen.same.s(member) for member in members], kitchen.same.s())
    assert await (await workflow.send()).wait(TIMEOUT) == value


async def test_map_starmap_and_chunks(kitchen: Kitchen):
    assert await (await kitchen.total.map([[1, 2], [3]]).send()).wait(TIMEOUT) == [3, 3]
    assert await (await kitchen.add.starmap([(1, 2), (3, 4)]).send()).wait(TIMEOUT) == [3, 7]
    chunks = await kitchen.add.chunks([(1, 2), (3, 4), (5, 6)], 2).send()
    assert await chunks.wait(TIMEOUT) == [[3, 7], [11]]


async def test_a_failed_member_fails_the_body_and_all_after_it_once(kitchen: Kitchen):
    k = kitchen
    body = k.same.s().link_error(k.alarm.s())
    result = await chord([k.fail.s(), k.fail.s(), k.add.s(1)], body | k.same.s()).send()
    for ended in (result, result.parent):
        with pytest.raises(ChordError, match=r"raised ValueError\('spoiled'\)"):
            await ended.wait(TIMEOUT)
    task_id, error = await asyncio.wait_for(k.failures.get(), TIMEOUT)
    assert task_id == result.parent.id
    assert error.startswith("ChordError(")
    assert k.failures.empty()
    assert "same" not in k.ran


@pytest.mark.parametrize(("member", "reason"), [("refuse", "not for me"), ("no.such", "no.such")])
async def test_a_dead_letter_fails_all_that_wait_for_it(kitchen: Kitchen, member: str, reason: str):
    k = kitchen
    lost = k.app.signature(member, 1)
    body = k.same.s().link_error(k.alarm.s())
    result = await (chord([k.add.s(1), lost, lost | k.add.s(1)], body) | k.same.s()).send()
    for ended in (result, result.parent):
        with pytest.raises(ChordError, match=reason):
            await ended.wait(TIMEOUT)
    task_id, _ = await asyncio.wait_for(k.failures.get(), TIMEOUT)
    assert task_id == result.parent.id
    async with asyncio.timeout(TIMEOUT):
        # Nobody is told of a dead letter.
        while len(letters := await letters_of(k.app)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [letter.envelope.headers["task"] for letter in letters] == [member, member]


@pytest.mark.parametrize("before", ["a task", "a chord"])
async def test_an_errback_of_a_chain_with_a_group_in_it_is_called_once(kitchen: Kitchen, before: str):
    k = kitchen
    spoiled = group(k.fail.s(), k.fail.s())
    steps = (k.add.s(1), spoiled) if before == "a task" else (chord([k.add.s(1)], spoiled),)
    await chain(*steps, k.same.s()).link_error(k.alarm.s()).send()
    _, error = await asyncio.wait_for(k.failures.get(), TIMEOUT)
    assert "ChordError" in error
    assert await (await k.add.send(1)).wait(TIMEOUT) == 1
    assert k.failures.empty()


async def test_an_immutable_errback_is_called_with_its_own_arguments(kitchen: Kitchen):
    k = kitchen
    told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    async def tell(*given: Any) -> None:
        told.put_nowait(given)

    task = k.app.register("tell", tell)
    await k.fail.s().link_error(task.si("mine")).send()
    assert await asyncio.wait_for(told.get(), TIMEOUT) == ("mine",)


async def test_the_errbacks_of_a_chord_are_children_of_its_body(kitchen: Kitchen):
    k = kitchen
    result = await chord([k.fail.s()], k.same.s().link_error(k.note.s())).send()
    assert await asyncio.wait_for(k.seen.get(), TIMEOUT) == result.id
    [errbacks] = (await result.info()).children
    [[_, parent], [[[errback_id, _], members]]] = errbacks
    assert (parent, members) == (None, None)
    assert (await k.app.result(errback_id).wait(TIMEOUT)) is None


async def test_nothing_cannot_come_in_place_of_a_task(kitchen: Kitchen):
    async def vanish(ctx: Context) -> None:
        ctx.replace(chain())

    task = kitchen.app.register("vanish", vanish)
    with pytest.raises(MalformedMessage, match="empty chain"):
        await (await task.send()).wait(TIMEOUT)


async def test_a_failed_step_ends_the_chord_that_its_chain_is_a_part_of(kitchen: Kitchen):
    k = kitchen
    inner = chord([k.fail.s() | k.add.s(1) | k.add.s(2), k.add.s(1)], k.total.s())
    result = await chord([inner, k.add.s(1)], k.same.s()).send()
    with pytest.raises(ChordError, match="spoiled"):
        await result.wait(TIMEOUT)


async def test_what_comes_later_in_a_failed_chain_fails_with_it(kitchen: Kitchen):
    k = kitchen
    result = await chain(k.fail.s(), group(k.add.s(1), k.add.s(2)), k.total.s(), k.add.s(1)).send()
    with pytest.raises(ValueError, match="spoiled"):
        await result.wait(TIMEOUT)
    counted = await workflow_progress(result)
    assert (counted.total, counted.failed) == (5, 5)


async def test_links_of_a_workflow(kitchen: Kitchen):
    k = kitchen
    await (k.add.s(1) | k.add.s(2)).link(k.note.s(), k.add.s(10) | k.note.s()).send()
    seen = {await asyncio.wait_for(k.seen.get(), TIMEOUT) for _ in range(2)}
    assert seen == {3, 13}
    await (k.add.s(1) | group(k.add.s(2), k.add.s(3))).link(k.note.s()).send()
    assert {await asyncio.wait_for(k.seen.get(), TIMEOUT) for _ in range(2)} == {3, 4}


async def test_a_task_that_becomes_a_workflow(kitchen: Kitchen):
    k = kitchen
    assert await (await k.become.send(3)).wait(TIMEOUT) == 9
    assert await (await (k.become.s(3) | k.add.s(1)).send()).wait(TIMEOUT) == 10
    workflow = chord([k.become.s(1), k.pieces.s(10), k.same.s(0)], k.same.s())
    assert await (await workflow.send()).wait(TIMEOUT) == [5, [11, 12], 0]


async def test_a_chord_that_grows(kitchen: Kitchen):
    k = kitchen
    result = await chord([k.grow.s(10), k.add.s(1)], k.same.s()).send()
    assert sorted(await result.wait(TIMEOUT)) == [1, 10, 11, 12]


@pytest.mark.parametrize("ending", ["ignore", "reject"])
@pytest.mark.parametrize("then", [False, True])
async def test_a_member_that_ends_without_a_value_fails_the_chord(kitchen: Kitchen, ending: str, then: bool):
    k = kitchen

    async def leave(ctx: Context) -> None:
        getattr(ctx, ending)()

    task = k.app.register("leave", leave)
    member = task.s() | k.add.s(1) if then else task.s()
    result = await chord([member, k.add.s(1)], k.same.s()).send()
    with pytest.raises(ChordError, match=f"(?i){ending}"):
        await result.wait(TIMEOUT)


async def test_an_expired_member_fails_the_chord(app: Celeriac):
    k = Kitchen(app)
    result = await chord([k.add.s(1).set(expires=-1), k.add.s(2)], k.same.s()).send()
    async with app.worker():
        with pytest.raises(ChordError, match="expired"):
            await result.wait(TIMEOUT)


async def test_a_revoked_member_fails_the_chord(app: Celeriac):
    k = Kitchen(app)
    result = await chord([k.add.s(1), k.add.s(2)], k.same.s()).send()
    await app.connections().revocations.add([result.parent[0].id])
    async with app.worker():
        with pytest.raises(ChordError, match="TaskRevoked"):
            await result.wait(TIMEOUT)
        with pytest.raises(TaskRevoked):
            await result.parent[0].wait(TIMEOUT)


async def test_a_workflow_is_cancelled_by_its_root_id(app: Celeriac):
    k = Kitchen(app)
    result = await (group(k.add.s(1), k.add.s(2)) | k.total.s() | k.add.s(1)).send()
    await app.connections().revocations.add([], roots=[result.root_id])
    async with app.worker():
        with pytest.raises(ChordError, match="TaskRevoked"):
            await result.wait(TIMEOUT)
    assert k.ran == []


async def test_only_tasks_in_a_chord_can_make_it_grow(kitchen: Kitchen):
    result = await kitchen.grow.send(1)
    with pytest.raises(ConfigError, match="part of no chord"):
        await result.wait(TIMEOUT)


async def test_stamps_are_carried_on(kitchen: Kitchen):
    stamps: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def stamped(ctx: Context, *given: Any) -> None:
        stamps.put_nowait(ctx.message.stamps)

    task = kitchen.app.register("stamped", stamped)
    await (group(task.s(), task.s()) | task.s()).stamp(order=7).link(task.s()).send()
    assert [await asyncio.wait_for(stamps.get(), TIMEOUT) for _ in range(4)] == [{"order": 7}] * 4

    async def sends() -> None:
        await task.send()
        await (task.s() | task.s()).send()

    await kitchen.app.register("sends", sends).s().stamp(order=7).send()
    assert [await asyncio.wait_for(stamps.get(), TIMEOUT) for _ in range(3)] == [{}] * 3


async def test_a_chord_is_refused_before_rpc_results_connect_anywhere():
    nowhere = "amqp://guest:guest@127.0.0.1:1//"
    async with Celeriac("none", broker=nowhere, backend="rpc://") as app:
        with pytest.raises(ConfigError, match="backend that can count"):
            await (group(app.signature("a"), app.signature("b")) | app.signature("c")).send()


async def test_without_a_store_that_counts_a_chord_is_refused_before_anything_is_sent(queue: str):
    async with Celeriac("none", broker="memory://", backend="disabled://", default_queue=queue) as app:
        with pytest.raises(ConfigError, match="backend that can count"):
            await chord([app.signature("a")], app.signature("b")).send()
        assert await app.connections().broker.depth(queue) == 0


async def test_a_worker_that_died_with_the_claim_leaves_one_body(redis_server: RedisServer, queue: str):
    """The parts were counted and the claim was given, then nothing more was heard of that worker."""
    url = redis_server.url()
    async with Celeriac("claim", broker=url, backend=url, default_queue=queue) as app:
        k = Kitchen(app)
        result = await chord([k.add.s(1), k.add.s(2)], k.total.s()).send()
        chords = app.connections().backend.chords
        assert chords is not None
        body = write("total", options={"task_id": result.id})
        for index, member in enumerate(result.parent):
            part = Part(result.parent.id, member.id, index, SUCCESS, index + 1, body, root_id="r")
            standing = await chords.count(chords.encode(part))
        assert standing.claim is not None
        with closing(redis_server.client()) as client:
            client.pexpire(f"celery-taskset-meta-{result.parent.id}.c", 200)
        async with app.worker():
            assert await result.wait(TIMEOUT) == 3
    assert k.ran.count("total") == 1


async def test_redis_that_goes_away_amid_chords(own_redis: RedisServer, queue: str):
    async with Celeriac("blink", broker=own_redis.url(), backend=own_redis.url(), default_queue=queue) as app:
        k = Kitchen(app)
        results = [await chord([k.add.s(n) for n in range(20)], k.total.s()).send() for _ in range(20)]
        async with app.worker(concurrency=4):
            with suppress(TimeoutError):
                await results[3].wait(TIMEOUT)
            await asyncio.to_thread(own_redis.kill)
            await asyncio.to_thread(own_redis.start)
            assert [await value(result) for result in results] == [190] * 20


async def value(result: Any) -> Any:
    """Wait through the store's absence."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                return await result.wait()
            except BackendUnavailable:
                await asyncio.sleep(0.05)
