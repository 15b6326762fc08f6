"""A task that gives its message back again and again does not keep a processor busy."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import Celeriac, Context
from celeriac.errors import Reject

RUNS = 4
LEAST = 0.1 + 0.2
"""Seconds that the third and fourth run have to wait together."""


@pytest.fixture(params=["memory", "sqlite", "redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in ("redis", "rabbitmq"):
        url: str = request.getfixturevalue("redis_url" if request.param == "redis" else "rabbit_url")
        return url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db"


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
async def test_a_message_that_is_rejected_again_comes_back_later_each_time(
    broker: str, delivery: str, queue: str, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
):
    times: list[float] = []
    enough = asyncio.Event()
    app = Celeriac("rejecting", broker, "disabled://", default_queue=queue, key_prefix=unique("key") + ":")

    @app.task(name="refuse", delivery=delivery)
    async def refuse(ctx: Context) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < RUNS:
            raise Reject("not yet", requeue=True)
        enough.set()

    async with app:
        await refuse.send()
        async with app.worker():
            await asyncio.wait_for(enough.wait(), 60)
    assert times[-1] - times[0] > LEAST - 0.1
    assert "put back on the queue: rejected again, so that it waits for 0.1 s: not yet" in caplog.text
