"""A task that kills its worker is delivered so often and no more."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import WorkerLost
from celeriac.wire.result import FAILURE

WAIT, ALLOWED = 40.0, 2
FOLDER = Path(__file__).parent


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
async def test_a_task_that_kills_its_worker_fails_after_max_deliveries(
    place: str, unique: Callable[[str], str], tmp_path: Path
):
    queue = unique("poison")
    environment = {
        **os.environ,
        "POISON_URL": place,
        "POISON_QUEUE": queue,
        "POISON_RUNS": str(tmp_path / "runs"),
    }
    app = Celeriac(
        "poison", broker=place, backend=place, default_queue=queue, lease=1.0, max_deliveries=ALLOWED
    )
    async with app:
        result = await app.send_task("poison.die")
        waiting = asyncio.create_task(result.wait(WAIT))
        while not waiting.done():
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from poison_tasks import app, run; run()",
                cwd=FOLDER, env=environment, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            ended = asyncio.create_task(worker.wait())
            await asyncio.wait([ended, waiting], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                worker.terminate()
                await ended
        with pytest.raises(WorkerLost, match="max_deliveries is 2"):
            await waiting
        assert (await result.info()).status == FAILURE
        letters = [letter for letter in await app.connections().broker.dead.list() if letter.queue == queue]
        assert len(letters) == 1
    assert len((tmp_path / "runs").read_text().splitlines()) == ALLOWED
