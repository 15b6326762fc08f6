"""Tasks that run at most once, whose messages child processes acknowledge; some note that they ran."""

import os
import signal
import time
from pathlib import Path

from celeriac import Celeriac
from celeriac.worker.pools.processes import ahead

app = Celeriac("delegate", "memory://", "memory://", delivery="at_most_once", lease=3.0)

ahead.MOST_CHILDREN = 8  # calls go ahead however few processors this machine has


def note(runs: str, what: object = "ran") -> None:
    with Path(runs).open("a") as file:
        file.write(f"{what}\n")


@app.task
def double(x: int) -> int:
    return 2 * x


@app.task
def holds(directory: str) -> None:
    """Say that it runs, and wait until it may go on."""
    Path(directory, "runs").touch()
    until = time.monotonic() + 60
    while not Path(directory, "go").exists() and time.monotonic() < until:
        time.sleep(0.002)


@app.task
def noted(runs: str, what: object = "ran") -> str:
    note(runs, what)
    return str(what)


@app.task
def fails(runs: str) -> None:
    note(runs)
    raise ValueError("so it is meant")


@app.task
def dies(runs: str) -> None:
    note(runs)
    os.kill(os.getpid(), signal.SIGKILL)
