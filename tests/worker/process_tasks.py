"""Tasks that child processes import."""

import asyncio
import functools
import gc
import mmap
import os
import signal
import sys
import time
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from celeriac import Celeriac, Context, Retry
from celeriac.errors import SoftTimeLimitExceeded

app = Celeriac("processes", broker="memory://", backend="memory://")


class Custom(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)
        self.b = b


@app.task
def square(x: int) -> tuple[int, int]:
    return x * x, os.getpid()


@app.task
def meet(directory: str, count: int) -> int:
    """Return the process, once so many have come to the directory."""
    place = Path(directory)
    (place / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(place.iterdir())) < count and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid()


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@app.task
@passing_on
async def awaited(x: int) -> tuple[int, int]:
    await asyncio.sleep(0)
    return x + 1, os.getpid()


@app.task(soft_timeout=0.2)
@passing_on
async def partly(asleep: float) -> str:
    try:
        await asyncio.sleep(asleep)
    except asyncio.CancelledError:
        return "a part"
    return "the whole"


@app.task
def fails() -> None:
    raise KeyError("here")


@app.task
def leaves_a_cycle() -> None:
    cycle: list[Any] = [bytearray(10_000_000)]
    cycle.append(cycle)


@app.task
def resident() -> int:
    """Return the MiB that this process has resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE // 2**20


@app.task
def fails_unpicklably() -> None:
    raise Custom(1, 2)


@app.task
def unpicklable() -> Any:
    return (x for x in "abc")


@app.task
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def vanishes() -> None:
    os._exit(0)


@app.task(retry=Retry(backoff=3600))
def leaves() -> None:
    raise SystemExit(3)


@app.task(soft_timeout=0.2, timeout=20)
def sleeps() -> str:
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        return "told"
    return "slept"


@app.task(track_started=True)
def waits() -> None:
    time.sleep(30)


@app.task
def grows(mebibytes: int) -> int:
    ballast = bytearray(mebibytes * 1024 * 1024)
    return os.getpid() if ballast is not None else 0


@app.task(timeout=0.3)
def hangs() -> None:
    while True:
        pass


@app.task(timeout=0.3)
def holds(place: str) -> None:
    Path(place).touch()
    try:
        time.sleep(60)
    finally:
        Path(place).unlink()


@app.task(timeout=0.3)
def stays(place: str) -> None:
    Path(place).touch()
    while True:
        with suppress(BaseException):
            time.sleep(60)


@app.task
def tell(ctx: Context) -> list[Any]:
    return [ctx.id, ctx.attempt, ctx.queue]


@app.task
def again(ctx: Context) -> int:
    if ctx.attempt == 1:
        try:
            raise OSError("net")
        except OSError:
            ctx.retry(countdown=0.01)
    return ctx.attempt


@app.task
async def on_loop() -> int:
    return os.getpid()


class Ballast(bytearray):
    """Something large that can be looked for."""


HELD: list[weakref.ref[Ballast]] = []


def load() -> Ballast:
    gc.disable()
    data = Ballast()
    HELD.append(weakref.ref(data))
    return data


@app.task
def fails_with_ballast() -> None:
    data = load()
    raise ValueError(f"ballast of {len(data)}")


@app.task
def fails_with_an_error_of_its_own() -> None:
    data = load()
    try:
        raise OSError(f"ballast of {len(data)}")
    except OSError as error:
        own = Custom(1, 2)
        own.__cause__ = error
        raise own from error


@app.task
def count_ballast() -> tuple[int, int]:
    return len(HELD), sum(ref() is not None for ref in HELD)


TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


@app.task
def exchange(name: str) -> str:
    before = TENANT.get()
    TENANT.set(name)
    return before


@app.task
def echo(data: str) -> str:
    return data


@app.task
def rests(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@app.task
def closes_everything() -> None:
    os.closerange(3, 64)
    time.sleep(30)


@app.task
def server_of_children() -> int:
    return os.getppid()


class Http(Exception):
    made = 0

    def __init__(self, code: int) -> None:
        Http.made += 1
        super().__init__(f"HTTP {code}")
        self.code = code


@app.task
def fails_with_http() -> None:
    raise Http(404)


def only_here() -> Any:
    module = types.ModuleType("known_in_one_child")
    sys.modules["known_in_one_child"] = module
    exec("class Strange(LookupError): pass\nclass Odd: pass", module.__dict__)
    return module


@app.task
def fails_with_what_is_known_only_here() -> None:
    module = only_here()
    raise module.Strange("lost", module.Odd(), 7)


@app.task
def returns_what_is_known_only_here() -> object:
    return only_here().Odd()


def noted(path: str, line: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{line} {os.getpid()}\n")


living = Celeriac("living", broker="memory://", backend="memory://")


@living.child_lifespan
def connection() -> Iterator[Mapping[str, Any]]:
    noted(os.environ["CHILDREN_SAY"], "open")
    yield {"connection": f"of {os.getpid()}"}
    noted(os.environ["CHILDREN_SAY"], "closed")


@living.task
def uses_it(ctx: Context) -> str:
    return ctx.state["connection"]


refusing = Celeriac("refusing", broker="memory://", backend="memory://")


@refusing.child_lifespan
def broken() -> Iterator[None]:
    raise OSError("no database")
    yield


@refusing.task
def never_runs() -> None: ...
