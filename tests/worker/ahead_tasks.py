"""Tasks for children that are given calls before they are free."""

import os
import time
from pathlib import Path

from celeriac import Celeriac

app = Celeriac("ahead", broker="memory://", backend="memory://")


def note(runs: str) -> None:
    with Path(runs).open("a") as file:
        file.write(f"{os.getpid()}\n")


def wait_for(directory: str) -> None:
    """Say that it runs, and wait until it may go on."""
    Path(directory, "runs").touch()
    until = time.monotonic() + 60
    while not Path(directory, "go").exists() and time.monotonic() < until:
        time.sleep(0.002)


@app.task
def double(x: int) -> tuple[int, int]:
    return 2 * x, os.getpid()


@app.task
def holds(directory: str) -> int:
    wait_for(directory)
    return os.getpid()


@app.task
def dies(directory: str) -> None:
    wait_for(directory)
    os._exit(7)


@app.task
def noted(runs: str) -> int:
    note(runs)
    return os.getpid()


@app.task(delivery="at_most_once")
def once(runs: str) -> int:
    note(runs)
    return os.getpid()


@app.task
async def on_loop(x: int) -> int:
    return x
