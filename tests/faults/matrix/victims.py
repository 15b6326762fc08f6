"""A process that forks a worker for each job and says how it died: imports are paid for once.

A job is JSON: the case's ``name``, ``url``, delivery ``mode`` and ``lease``; the fault ``at`` which the worker kills
itself (``None`` leaves that to the body, or to who reads the process id); the number of ``deaths`` that are to be died
one after the other.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from celeriac.settings import Settings
from celeriac.testing.faults import Faults, FaultyBackend, FaultyBroker
from tests.faults.matrix.bodies import make_app
from tests.faults.opened import open_both


async def work(job: dict[str, Any]) -> None:
    faults = Faults()
    if job["at"]:
        faults.kill_at(*job["at"])
    broker, backend = open_both(job["url"], job["results"], Settings(lease=job["lease"]))
    app = make_app(FaultyBroker(broker, faults), FaultyBackend(backend, faults), job["mode"], job["lease"])
    async with app.worker(concurrency=1):
        await asyncio.Event().wait()


async def work_while_watched(job: dict[str, Any], watching: int) -> None:
    """Work, and end at once when the process that forked this one is gone, however it went."""
    asyncio.get_running_loop().add_reader(watching, os._exit, 1)
    await work(job)


def fork(job: dict[str, Any], watching: int, watched: int) -> int:
    if (child := os.fork()) == 0:
        os.close(watched)
        asyncio.run(work_while_watched(job, watching))
    print(f"{job['name']} is {child}", flush=True)
    return child


def main(jobs: list[dict[str, Any]]) -> None:
    watching, watched = os.pipe()
    alive = {fork(job, watching, watched): job for job in jobs}
    while alive:
        child, status = os.wait()
        job = alive.pop(child)
        job["deaths"] -= 1
        if job["deaths"]:
            alive[fork(job, watching, watched)] = job
        else:
            print(f"{job['name']}: {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
