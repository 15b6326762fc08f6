"""What follows one message has limits of number and size; what looks again does so ever more rarely, and ends."""

import time
import uuid
from typing import Any

import pytest

from celeriac import Celeriac, Context, chain, chord, from_dict, group
from celeriac.canvas.budget import Budget
from celeriac.errors import ChordError, ConfigError, EncodeError, MalformedMessage
from celeriac.wire.task import TaskMessage, encode

WAIT = 60.0
SIGNATURE = {"task": "echo", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": True}
STEP = from_dict(SIGNATURE)


def chunks(number: int, signature: dict[str, Any] = SIGNATURE) -> dict[str, Any]:
    """As many messages as this, in one small signature."""
    kwargs = {"task": signature, "it": [[1]] * number, "n": 1}
    return {"task": "celery.starmap", "subtask_type": "chunks", "immutable": True, "kwargs": kwargs}


def make(**settings: Any) -> Celeriac:
    app = Celeriac("budgets", broker="memory://", strict_arguments=False, **settings)

    @app.task(name="echo")
    async def echo(*values: Any) -> Any:
        return values[0] if values else None

    return app


async def sent(app: Celeriac, **fields: Any) -> Any:
    """Send a message as another program might; return its result's handle."""
    message = TaskMessage(**{"id": str(uuid.uuid4()), "task": "echo", **fields})
    await app.connections().publisher.publish(message)
    return app.result(message.id)


FOLLOWING = {
    "callbacks": {"callbacks": [SIGNATURE] * 9},
    "a group": {"callbacks": [group(STEP for _ in range(9)).to_dict()]},
    "groups in a group": {"callbacks": [group([group([STEP] * 3)] * 3).to_dict()]},
    "chunks": {"callbacks": [chunks(9)]},
    "a chord": {"callbacks": [chord([STEP] * 9, STEP).to_dict()]},
    "the next step": {"chain": [SIGNATURE, chunks(9)]},
    "errbacks": {"errbacks": [SIGNATURE] * 9},
}


@pytest.mark.parametrize("name", FOLLOWING)
async def test_a_message_that_too_many_would_follow_is_refused_before_it_runs(name: str):
    ran: list[int] = []
    for most in (8, 9):
        app = make(max_follow_ups=most, default_queue="many")
        app.register("first", ran.append)
        async with app, app.worker():
            result = await sent(app, task="first", args=[most], **FOLLOWING[name])
            if most == 9:
                await result.wait(timeout=WAIT)
            else:
                with pytest.raises(MalformedMessage, match=r"9 messages are more than max_follow_ups=8"):
                    await result.wait(timeout=WAIT)
    assert ran == [9]


@pytest.mark.parametrize(
    "following",
    [
        {"callbacks": [chunks(300, {**SIGNATURE, "args": ["A" * 1000]})]},
        {"callbacks": [chord([STEP] * 300, from_dict({**SIGNATURE, "args": ["A" * 1000]})).to_dict()]},
        {"callbacks": [{**group([STEP] * 300).to_dict(), "options": {"headers": {"x": "A" * 1000}}}]},
        {"chain": [{**SIGNATURE, "args": ["A" * 1000]}, chunks(300)]},
    ],
    ids=["chunks", "body", "options", "rest"],
)
async def test_what_is_copied_into_each_message_counts_for_each(following: dict[str, Any]):
    app = make(max_follow_up_bytes=100_000)
    async with app, app.worker():
        with pytest.raises(MalformedMessage, match=r"max_follow_up_bytes=100000"):
            await (await sent(app, **following)).wait(timeout=WAIT)


async def test_a_value_for_more_callbacks_than_may_get_it_fails_its_task():
    app = make(max_follow_up_bytes=100_000)
    ran: list[int] = []
    app.register("value", lambda: "A" * 1000)
    app.register("got", lambda value: ran.append(1))
    callback = {**SIGNATURE, "task": "got", "immutable": False}
    async with app, app.worker():
        with pytest.raises(EncodeError, match=r"max_follow_up_bytes"):
            await (await sent(app, task="value", callbacks=[callback] * 150)).wait(timeout=WAIT)
        assert ran == []
        assert await app.connections().broker.dead.count() == 0
        assert await (await sent(app, task="value", callbacks=[callback] * 2)).wait(timeout=WAIT)
        many = chord([app.signature("value") for _ in range(10)], group([app.signature("got")] * 20))
        with pytest.raises(Exception, match=r"max_follow_up_bytes"):
            await (await many.send()).wait(timeout=WAIT)


async def test_a_workflow_in_place_of_a_task_counts_too():
    app = make(max_follow_ups=9)

    @app.task(name="becomes")
    async def becomes(ctx: Context) -> None:
        ctx.replace(group(app.signature("echo", 1) for _ in range(10)))

    async with app, app.worker():
        with pytest.raises(EncodeError, match=r"max_follow_ups=9"):
            await (await app.send_task("becomes")).wait(timeout=WAIT)


@pytest.mark.parametrize("what", ["group", "chunks", "chord"])
def test_a_hundred_thousand_small_ones_are_no_obstacle(what: str):
    members = [SIGNATURE] * 100_000
    one = {
        "group": {"task": "celery.group", "kwargs": {"tasks": members}},
        "chord": {"task": "celery.chord", "kwargs": {"header": members, "body": SIGNATURE}},
        "chunks": chunks(100_000),
    }[what]
    message = TaskMessage(id="1", task="t", callbacks=[{"subtask_type": what, **one}])
    assert Budget().excess(message) is None


async def test_the_steps_after_a_failure_share_what_is_large_of_it():
    app = make()

    @app.task(name="fail")
    async def fail() -> None:
        raise ValueError("A" * 20_000)

    async with app, app.worker():
        last = await chain(app.signature("fail"), *(app.signature("echo") for _ in range(200))).send()
        with pytest.raises(ValueError, match="AAA"):
            await last.wait(timeout=WAIT)
        [record] = await app.connections().backend.load([last.id])
        assert record is not None
        assert len(str(record.result)) + len(record.traceback or "") < 3000


async def test_a_long_map_leaves_others_their_turn():
    app = make()
    order: list[str] = []
    app.register("other", lambda: order.append("other"))

    @app.task(name="busy")
    async def busy(last: bool) -> None:
        # A coroutine that never lets go of the event loop by itself.
        until = time.monotonic() + 0.005
        while time.monotonic() < until:
            pass
        if last:
            order.append("map")

    async with app, app.worker():
        mapped = await app.send_task("celery.map", [SIGNATURE | {"task": "busy"}, [False] * 60 + [True]])
        await (await app.send_task("other")).wait(timeout=WAIT)
        await mapped.wait(timeout=WAIT)
    assert order == ["other", "map"]


class TestUnlockingAChordThatNobodyCounts:
    async def look(self, app: Celeriac, looks: int, **kwargs: Any) -> str:
        """Have a worker look at a header that will never be ready; return the id of the body."""
        body = {**SIGNATURE, "options": {"task_id": str(uuid.uuid4())}}
        header = [[["never", None], None]]
        await sent(
            app,
            task="celery.chord_unlock",
            retries=looks,
            kwargs={"group_id": "g", "callback": body, "result": header, **kwargs},
        )
        return body["options"]["task_id"]

    @pytest.mark.parametrize(
        ("looks", "interval", "least", "most"),
        [
            (0, 0, 0.5, 1.1),
            (0, -5, 0.5, 1.1),
            (0, None, 0.5, 1.1),
            (0, 20, 19, 20.1),
            (40, 0, 5, 8),
            (300, 0, 55, 61),
        ],
    )
    async def test_it_looks_again_after_a_second_and_ever_more_rarely(
        self, looks: int, interval: float | None, least: float, most: float
    ):
        app = make()
        async with app, app.worker():
            await self.look(app, looks, interval=interval)
            parked: list[Any] = []
            while not parked:
                parked = await app.connections().broker.schedule.list(limit=2)
                now = time.time()
                await (await app.send_task("echo")).wait(timeout=WAIT)
        [entry] = parked
        assert least - 0.5 <= entry.due - now <= most

    @pytest.mark.parametrize(("looks", "kwargs"), [(3, {"max_retries": 3}), (100_000, {}), (10**12, {})])
    async def test_it_ends_and_whoever_waits_for_the_body_is_told(self, looks: int, kwargs: dict[str, Any]):
        app = make()
        async with app, app.worker():
            body = await self.look(app, looks, **kwargs)
            with pytest.raises(ChordError, match=rf"not ready after {looks + 1} looks"):
                await app.result(body).wait(timeout=WAIT)


def test_budgets_are_whole_numbers():
    for name in ("max_follow_ups", "max_follow_up_bytes", "max_decompressed_size"):
        with pytest.raises(ConfigError, match=name):
            Celeriac("budgets", broker="memory://", **{name: 0})


def test_a_body_that_no_reader_would_decompress_is_not_sent():
    codecs = make(max_decompressed_size=2_000_000).codecs
    message = TaskMessage(id="1", task="t", args=["A" * 1_900_000])
    envelope = encode(message, codecs, compression="gzip")  # it shrinks a thousand times: as it is
    assert "compression" not in envelope.headers
    with pytest.raises(EncodeError, match=r"max_decompressed_size"):
        encode(TaskMessage(id="1", task="t", args=["A" * 2_100_000]), codecs, compression="gzip")
