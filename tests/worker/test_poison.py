"""A task that kills its worker is delivered so often and no more; it takes nobody along, and all who wait are told."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from celeriac import Celeriac, chord
from celeriac.errors import ChordError
from celeriac.wire.result import FAILURE, SUCCESS

WAIT, ALLOWED = 40.0, 2
FOLDER = Path(__file__).parent


@asynccontextmanager
async def a_worker_at_any_time(environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Start a worker whenever there is none."""
    ending = asyncio.Event()

    async def keep() -> None:
        while not ending.is_set():
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from poison_tasks import app, run; run()",
                cwd=FOLDER, env=environment, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            ended, asked = asyncio.create_task(worker.wait()), asyncio.create_task(ending.wait())
            await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                worker.terminate()
                await ended
            asked.cancel()

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        ending.set()
        await keeping


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
async def test_a_task_that_kills_its_worker_fails_after_max_deliveries_and_takes_nobody_along(
    place: str, unique: Callable[[str], str], tmp_path: Path
):
    queue, runs = unique("poison"), tmp_path / "runs"
    environment = {
        **os.environ,
        "POISON_URL": place,
        "POISON_QUEUE": queue,
        "POISON_RUNS": str(runs),
    }
    app = Celeriac(
        "poison", broker=place, backend=place, default_queue=queue, lease=1.0, max_deliveries=ALLOWED
    )
    die, total, told = (app.signature(f"poison.{name}") for name in ("die", "total", "told"))
    async with app:
        header = [app.signature("poison.good", 1), die, app.signature("poison.good", 2)]
        after = await (chord(header, total.link_error(told)) | total).send()
        others = [await app.send_task("poison.good", [number]) for number in range(8)]
        async with a_worker_at_any_time(environment):
            with pytest.raises(ChordError, match="max_deliveries is 2"):
                await after.wait(WAIT)
            assert [await other.wait(WAIT) for other in others] == list(range(8))
            async with asyncio.timeout(WAIT):
                while f"told of {after.parent.id}" not in runs.read_text():  # noqa: ASYNC110 - a file tells nobody
                    await asyncio.sleep(0.01)
        ends = [(await result.info()).status for result in after.parent.parent]
        letters = [letter for letter in await app.connections().broker.dead.list() if letter.queue == queue]
    assert ends == [SUCCESS, FAILURE, SUCCESS]
    assert len(letters) == 1
    assert runs.read_text().splitlines().count("run") == ALLOWED
