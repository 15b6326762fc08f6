"""A database file that is removed or replaced while it is in use."""

import asyncio
import logging
from pathlib import Path

import pytest

from celeriac import Celeriac

WAIT = 60.0


@pytest.mark.parametrize("held", [False, True], ids=["idle", "at work"])
async def test_a_worker_goes_on_with_the_file_that_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, held: bool
):
    url = f"sqlite:///{tmp_path}/tasks.db"
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def double(x: int) -> int:
        return 2 * x

    async def wait() -> None:
        began.set()
        await goes_on.wait()

    async with Celeriac("shop", url, lease=1.0) as app:
        app.register("double", double)
        app.register("wait", wait)
        async with app.worker():
            assert await (await app.send_task("double", [1])).wait(WAIT) == 2
            if held:
                await app.send_task("wait")
                await began.wait()
            for end in ("", "-wal", "-shm"):
                (tmp_path / f"tasks.db{end}").unlink()
            async with Celeriac("client", url) as client:
                assert await (await client.send_task("double", [2])).wait(WAIT) == 4
                goes_on.set()
                assert await (await client.send_task("double", [3])).wait(WAIT) == 6
                assert "celery" in await client.connections().broker.queues()
    warned = [entry for entry in caplog.records if "removed or replaced" in entry.getMessage()]
    assert warned
    assert all(entry.levelno == logging.WARNING for entry in warned)
    assert len(warned) <= 3
