"""What the tasks of the crash matrix do; each leaves a line in a file for every run."""

import asyncio
import ctypes
import fcntl
import os
import signal
import sys
from pathlib import Path

from celeriac import Celeriac, Context, Ignore, Retry
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.settings import Delivery, Settings

VALUE = "the value"

CROWDED = 30.0
"""Seconds for an answer: one RabbitMQ has the virtual hosts of all cases at once."""


# A call through PyDLL keeps the interpreter lock, as a long regular expression does, without burning the processor.
_flock_with_the_lock = ctypes.PyDLL(None).flock


def note(runs: str) -> int:
    """Leave a line; return how many there are now."""
    with Path(runs).open("a") as file:
        file.write("run\n")
    return count(runs)


def count(runs: str) -> int:
    """How often a body ran."""
    return len(Path(runs).read_text().splitlines()) if Path(runs).exists() else 0


async def returns(runs: str) -> str:
    note(runs)
    return VALUE


async def raises(runs: str) -> str:
    note(runs)
    raise ValueError("its own")


async def retries_once(ctx: Context, runs: str) -> str:
    if note(runs) == 1:
        ctx.retry(countdown=0.05)
    return VALUE


async def asks_again(ctx: Context, runs: str) -> str:
    note(runs)
    if ctx.retries == 0:
        ctx.retry(countdown=0.05)
    return VALUE


async def gives_up(runs: str) -> str:
    note(runs)
    raise OSError("no luck")


async def rejects(ctx: Context, runs: str) -> str:
    note(runs)
    ctx.reject("not mine")


async def gives_back_once(ctx: Context, runs: str) -> str:
    if note(runs) == 1:
        ctx.reject("not now", requeue=True)
    return VALUE


async def ignores(runs: str) -> str:
    note(runs)
    raise Ignore


async def too_long(runs: str) -> str:
    note(runs)
    await asyncio.sleep(60)
    return VALUE


async def cancels(runs: str) -> str:
    note(runs)
    raise asyncio.CancelledError


async def exits(runs: str) -> str:
    note(runs)
    sys.exit(3)


async def waits_once(ctx: Context, runs: str) -> str:
    if note(runs) == 1:
        ctx.update_state("WAITING")
        await asyncio.Event().wait()
    return VALUE


async def waits_for_leave(runs: str) -> str:
    note(runs)
    while not os.path.exists(leave_file(runs)):  # noqa: ASYNC110, ASYNC240, PTH110 - a file tells nobody
        await asyncio.sleep(0.05)
    return VALUE


def holds_the_interpreter(runs: str) -> str:
    """Let nothing else of this process run until the test lets go of the file; a second run does not wait."""
    with Path(hold_file(runs)).open("a") as file:
        if note(runs) == 1:
            _flock_with_the_lock(file.fileno(), fcntl.LOCK_EX)
    return VALUE


def leave_file(runs: str) -> str:
    """The file that the test makes when the body may return."""
    return f"{runs}.leave"


def hold_file(runs: str) -> str:
    """The file whose lock the test has for as long as the interpreter is held."""
    return f"{runs}.hold"


async def kills_once(runs: str) -> str:
    if note(runs) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return VALUE


async def kills(runs: str) -> str:
    note(runs)
    os.kill(os.getpid(), signal.SIGKILL)
    return VALUE


BODIES = (
    returns, raises, retries_once, asks_again, rejects, gives_back_once, ignores, cancels, exits, waits_once,
    waits_for_leave, holds_the_interpreter, kills_once, kills,
)  # fmt: skip


def make_app(broker: str | Broker, backend: str | Backend, mode: Delivery, lease: float) -> Celeriac:
    """An app with all of these tasks."""
    settings = Settings(delivery=mode, lease=lease, max_deliveries=2, publish_timeout=CROWDED)
    app = Celeriac("matrix", broker=broker, backend=backend, settings=settings)
    for body in BODIES:
        app.register(body.__name__, body)
    app.register("gives_up", gives_up, retry=Retry(on=(OSError,), max_attempts=3, backoff=0.01))
    app.register("too_long", too_long, timeout=0.1)
    app.register("too_long_softly", too_long, soft_timeout=0.1)
    return app
