"""Tasks that outlast their lease, each in its own way; every run is told in a file, outside of any broker."""

import asyncio
import ctypes
import os
import time
from pathlib import Path

from celeriac import Celeriac

app = Celeriac("leases")

# A call through PyDLL keeps the interpreter lock: as a long regular expression does, without burning the CPU.
_sleep_with_the_lock = ctypes.PyDLL(None).usleep


def tell(record: str, what: str) -> None:
    with Path(record).open("a") as file:
        file.write(f"{what} {os.getpid()} {time.time()}\n")


@app.task(name="hog")
def hog(record: str, seconds: float) -> None:
    tell(record, "began")
    _sleep_with_the_lock(int(seconds * 1_000_000))
    tell(record, "ended")


@app.task(name="wait")
async def wait(record: str, seconds: float) -> None:
    tell(record, "began")
    await asyncio.sleep(seconds)
    tell(record, "ended")


@app.task(name="note")
async def note(record: str, number: int) -> None:
    tell(record, f"note-{number}")
