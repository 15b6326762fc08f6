"""The suite that every result store passes: a test for each sentence of its contract."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac.contracts.backend import Backend
from celeriac.errors import EncodeError
from celeriac.testing.steps import soon
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, RETRY, REVOKED, STARTED, SUCCESS, ResultRecord


class BackendContract:
    """Subclass it and give it two fixtures.

    ``backend``: the store under test, with JSON as its serializer. ``second``: another connection to the same place,
    as another process would have. The fixtures close what they open.
    """

    pytestmark = pytest.mark.asyncio

    # --- storing and loading -------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            0,
            -(2**70),
            1.5,
            "",
            "grüße 値 \u2028 \x00",
            [],
            {},
            [1, [None, {"a": {}}]],
            {"ключ": "値"},
        ],
        ids=repr,
    )
    async def test_a_value_comes_back_as_it_was(
        self, backend: Backend, second: Backend, task_id: str, value: Any
    ) -> None:
        await _store(backend, task_id, SUCCESS, value)
        (record,) = await second.load([task_id])
        assert record is not None
        assert (record.task_id, record.status, record.ready) == (task_id, SUCCESS, True)
        assert record.result == value
        assert type(record.result) is type(value)

    async def test_everything_else_in_a_record_comes_back(
        self, backend: Backend, second: Backend, task_id: str
    ) -> None:
        done = datetime.now(UTC).replace(microsecond=789012)
        children = [[["child", None], None], [["group", None], [[["member", None], None]]]]
        sent = ResultRecord(task_id=task_id, status=SUCCESS, result=1, children=children, date_done=done)
        await backend.store(backend.encode(sent))
        record = await _load(second, task_id)
        assert (record.children, record.date_done, record.traceback) == (children, done, None)

    @pytest.mark.parametrize("state", [FAILURE, RETRY, REVOKED])
    async def test_an_exception_comes_back_as_a_failure(
        self, backend: Backend, task_id: str, state: str
    ) -> None:
        failure = Failure("ValueError", ["boom", 2], "builtins")
        await backend.store(
            backend.encode(
                ResultRecord(task_id=task_id, status=state, result=failure, traceback="Traceback …")
            )
        )
        record = await _load(backend, task_id)
        assert (record.status, record.result, record.traceback) == (state, failure, "Traceback …")

    async def test_a_large_value(self, backend: Backend, second: Backend, task_id: str) -> None:
        value = "0123456789abcdef" * 65536
        await _store(backend, task_id, SUCCESS, value)
        assert (await _load(second, task_id)).result == value

    async def test_ids_in_any_script(self, backend: Backend, task_id: str) -> None:
        name = f"задача 任务 'quoted\" {task_id}"
        await _store(backend, name, SUCCESS, 1)
        assert (await _load(backend, name)).task_id == name

    async def test_load_answers_in_the_order_it_was_asked(self, backend: Backend, task_id: str) -> None:
        await _store(backend, f"{task_id}.a", SUCCESS, "a")
        await _store(backend, f"{task_id}.b", SUCCESS, "b")
        loaded = await backend.load([f"{task_id}.b", f"{task_id}.missing", f"{task_id}.a", f"{task_id}.b"])
        assert [None if record is None else record.result for record in loaded] == ["b", None, "a", "b"]
        assert await backend.load([]) == []

    async def test_1000_stores_and_loads_at_once(
        self, backend: Backend, second: Backend, task_id: str
    ) -> None:
        await asyncio.gather(
            *[_store(backend, f"{task_id}.{number}", SUCCESS, number) for number in range(1000)]
        )
        loaded = await second.load([f"{task_id}.{number}" for number in range(1000)])
        assert [None if record is None else record.result for record in loaded] == list(range(1000))
        singles = await asyncio.gather(*[_load(second, f"{task_id}.{number}") for number in range(200)])
        assert [record.result for record in singles] == list(range(200))

    async def test_what_cannot_be_written_is_said_before_it_is_stored(
        self, backend: Backend, task_id: str
    ) -> None:
        with pytest.raises(EncodeError, match="object"):
            backend.encode(ResultRecord(task_id=task_id, status=SUCCESS, result={"deep": [object()]}))
        assert await backend.load([task_id]) == [None]

    async def test_forget(self, backend: Backend, second: Backend, task_id: str) -> None:
        await _store(backend, f"{task_id}.a", SUCCESS, 1)
        await _store(backend, f"{task_id}.b", SUCCESS, 2)
        await second.forget([f"{task_id}.a", f"{task_id}.missing"])
        kept = await backend.load([f"{task_id}.a", f"{task_id}.b"])
        assert [record is None for record in kept] == [True, False]
        await _store(backend, f"{task_id}.a", STARTED)
        assert (await _load(second, f"{task_id}.a")).status == STARTED

    # --- states --------------------------------------------------------------------------------------------

    async def test_a_state_replaces_the_one_before(self, backend: Backend, task_id: str) -> None:
        for state, value in [
            (STARTED, {"pid": 1}),
            ("PROGRESS", {"current": 3}),
            (RETRY, None),
            (SUCCESS, 7),
        ]:
            await _store(backend, task_id, state, value)
            record = await _load(backend, task_id)
            assert (record.status, record.result) == (state, value)

    async def test_concurrent_stores_count_in_the_order_of_the_calls(
        self, backend: Backend, task_id: str
    ) -> None:
        states = [STARTED, *[f"STEP-{number}" for number in range(20)]]
        await asyncio.gather(*[_store(backend, task_id, state) for state in states])
        assert (await _load(backend, task_id)).status == states[-1]

    @pytest.mark.parametrize("state", [STARTED, RETRY, FAILURE, REVOKED, "PROGRESS"])
    async def test_a_success_stays(self, backend: Backend, second: Backend, task_id: str, state: str) -> None:
        await _store(backend, task_id, SUCCESS, "done")
        await _store(second, task_id, state)
        record = await _load(backend, task_id)
        assert (record.status, record.result) == (SUCCESS, "done")

    async def test_a_success_stays_within_one_round_trip(self, backend: Backend, task_id: str) -> None:
        await asyncio.gather(_store(backend, task_id, SUCCESS, "done"), _store(backend, task_id, STARTED))
        assert (await _load(backend, task_id)).status == SUCCESS

    async def test_a_failure_may_still_become_a_success(self, backend: Backend, task_id: str) -> None:
        await _store(backend, task_id, FAILURE)
        await _store(backend, task_id, SUCCESS, 1)
        assert (await _load(backend, task_id)).status == SUCCESS

    # --- following -----------------------------------------------------------------------------------------

    async def test_the_present_record_comes_first(self, backend: Backend, task_id: str) -> None:
        await _store(backend, task_id, STARTED)
        async with backend.follow([task_id]) as records:
            assert (await soon(anext(records))).status == STARTED
            await _store(backend, task_id, SUCCESS, 1)
            assert [record.result async for record in records] == [1]

    async def test_each_record_stored_elsewhere_comes(
        self, backend: Backend, second: Backend, task_id: str
    ) -> None:
        async with backend.follow([task_id]) as records:
            for number in range(5):
                await _store(second, task_id, "PROGRESS", {"current": number})
                assert (await soon(anext(records))).result == {"current": number}
            await _store(second, task_id, SUCCESS, "end")
            assert [record.result async for record in records] == ["end"]

    async def test_it_ends_when_all_are_ready(self, backend: Backend, second: Backend, task_id: str) -> None:
        ids = [f"{task_id}.{number}" for number in range(300)]
        await asyncio.gather(*[_store(second, name, SUCCESS, name) for name in ids[:100]])
        async with backend.follow(ids) as records:
            storing = asyncio.gather(*[_store(second, name, SUCCESS, name) for name in ids[100:]])
            got = await soon(_collect(records))
            await storing
        assert sorted(record.task_id for record in got) == sorted(ids)

    async def test_following_what_is_done_ends_at_once(self, backend: Backend, task_id: str) -> None:
        await _store(backend, task_id, FAILURE, Failure("ValueError", ["x"], "builtins"))
        for _ in range(2):
            async with backend.follow([task_id, task_id]) as records:
                assert [record.status for record in await soon(_collect(records))] == [FAILURE]

    async def test_following_nothing_ends_at_once(self, backend: Backend) -> None:
        async with backend.follow([]) as records:
            assert await soon(_collect(records)) == []

    async def test_many_followers_of_one_task(self, backend: Backend, second: Backend, task_id: str) -> None:
        async def wait() -> Any:
            async with backend.follow([task_id]) as records:
                started.release()
                return [record.result async for record in records]

        started = asyncio.Semaphore(0)
        waits = [asyncio.create_task(wait()) for _ in range(50)]
        for _ in waits:
            await soon(started.acquire())
        await _store(second, task_id, SUCCESS, 42)
        assert await soon(asyncio.gather(*waits)) == [[42]] * 50

    async def test_many_followers_of_many_tasks(
        self, backend: Backend, second: Backend, task_id: str
    ) -> None:
        async def wait(name: str) -> Any:
            async with backend.follow([name]) as records:
                return [record.result async for record in records]

        names = [f"{task_id}.{number}" for number in range(200)]
        waits = [asyncio.create_task(wait(name)) for name in names]
        await asyncio.gather(*[_store(second, name, SUCCESS, name) for name in names])
        assert await soon(asyncio.gather(*waits)) == [[name] for name in names]

    async def test_a_task_that_stores_nothing_is_waited_for(self, backend: Backend, task_id: str) -> None:
        async with backend.follow([task_id, f"{task_id}.late"]) as records:
            await _store(backend, task_id, SUCCESS)
            assert (await soon(anext(records))).task_id == task_id
            waiting = asyncio.ensure_future(anext(records))
            await _store(backend, f"{task_id}.unrelated", SUCCESS)
            await backend.load([task_id])
            assert not waiting.done()
            await _store(backend, f"{task_id}.late", SUCCESS)
            assert (await soon(waiting)).task_id == f"{task_id}.late"

    async def test_a_follower_that_left_is_not_missed(
        self, backend: Backend, second: Backend, task_id: str
    ) -> None:
        async with backend.follow([task_id]):
            pass
        waiting = asyncio.create_task(_follow(backend, task_id))
        await backend.load([task_id])
        waiting.cancel()
        await asyncio.wait([waiting])
        await _store(second, task_id, SUCCESS, 1)
        assert await soon(_follow(backend, task_id)) == [1]

    # --- the rest ------------------------------------------------------------------------------------------

    async def test_ping_says_in_one_line_what_answered(self, backend: Backend) -> None:
        assert (await backend.ping()).strip()
        assert "\n" not in await backend.ping()

    async def test_examining_finds_nothing_to_mend(self, backend: Backend) -> None:
        assert list(await backend.examine()) == []

    async def test_close_is_idempotent(self, backend: Backend, task_id: str) -> None:
        await _store(backend, task_id, SUCCESS)
        await backend.close()
        await backend.close()

    @pytest.fixture
    def task_id(self) -> str:
        """Return an id that no other test has."""
        return str(uuid.uuid4())


async def _store(backend: Backend, task_id: str, status: str, result: Any = None) -> None:
    await backend.store(backend.encode(ResultRecord(task_id=task_id, status=status, result=result)))


async def _load(backend: Backend, task_id: str) -> ResultRecord:
    (record,) = await backend.load([task_id])
    assert record is not None
    return record


async def _collect(records: Any) -> list[ResultRecord]:
    return [record async for record in records]


async def _follow(backend: Backend, task_id: str) -> list[Any]:
    async with backend.follow([task_id]) as records:
        return [record.result async for record in records]
