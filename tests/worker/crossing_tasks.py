"""Tasks whose exceptions, arguments or values do not come through pickle."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from celeriac import Celeriac, Context, Retry

app = Celeriac("crossing", broker="memory://", backend="memory://", result_extended=True)


class StatusError(Exception):
    """As httpx has one: its constructor wants more than its arguments tell."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.connection = (part for part in "no pickle")


class Doubled(ValueError):
    """Pickle makes another one of it."""

    def __init__(self, code: str) -> None:
        super().__init__(f"code {code}")


class Refusing:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return (_refuse, ())


class Exiting(Exception):
    """Asks to end the process when it is pickled."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)


class ExitingThere(Exception):
    """Asks to end the process when it is unpickled."""

    def __reduce__(self) -> Any:
        return (sys.exit, (3,))


def _around_itself() -> Exception:
    error = StatusError("busy", status=503)
    error.args = ("around itself", error, iter(()))
    return error


UNPICKLABLE: dict[str, Callable[[], Exception]] = {
    "exits": lambda: Exiting("exits"),
    "exits there": lambda: ExitingThere("exits there"),
    "deep": lambda: LookupError("deep", functools.reduce(lambda inner, _: [inner], range(5000), [])),
    "around itself": _around_itself,
}


def _refuse() -> NoReturn:
    raise RuntimeError("not here")


def _status_error(attempt: int) -> None:
    if attempt == 1:
        raise StatusError("busy", status=503)


@app.task
def asks_for_a_retry(ctx: Context) -> int:
    try:
        _status_error(ctx.attempt)
    except StatusError:
        ctx.retry(countdown=0)
    return ctx.attempt


@app.task
def asks_once(ctx: Context) -> None:
    try:
        _status_error(1)
    except StatusError as error:
        ctx.retry(countdown=0, max_attempts=1, cause=error)


@app.task(retry=Retry(on=(StatusError,), backoff=0))
def retried_on_its_class(ctx: Context) -> int:
    _status_error(ctx.attempt)
    return ctx.attempt


@app.task(retry=Retry(never=(StatusError,), backoff=0))
def never_retried() -> None:
    _status_error(1)


@app.task(retry=Retry(on=(Exiting, ExitingThere, LookupError, StatusError), backoff=0))
def retried_on_what_no_pickle_takes(ctx: Context, kind: str) -> int:
    if ctx.attempt == 1:
        error = UNPICKLABLE[kind]()
        raise error
    return ctx.attempt


@app.task
def fails_with_what_no_pickle_takes(kind: str) -> None:
    error = UNPICKLABLE[kind]()
    raise error


@app.task(retry=Retry(on=(LookupError,), backoff=0))
def retried_on_a_class_above(ctx: Context) -> int:
    class Local(KeyError):
        pass

    if ctx.attempt == 1:
        raise Local("of the function")
    return ctx.attempt


@app.task(retry=Retry(on=(ExceptionGroup,), backoff=0))
def retried_on_a_group(ctx: Context) -> int:
    if ctx.attempt == 1:
        raise ExceptionGroup("several", [StatusError("busy", status=503), OSError("net")])
    return ctx.attempt


@app.task
def fails_doubled() -> None:
    raise Doubled("7")


@app.task
def returns_what_cannot_be_unpickled() -> Any:
    return Refusing()


@app.task
def returns_what_exits_when_it_is_unpickled() -> Any:
    return ExitingThere()


@app.task
def returns_a_generator() -> Any:
    return (part for part in "abc")


@app.task
def pid() -> int:
    return os.getpid()


@app.task
def ends_a_program() -> int:
    """Start a program and end it by SIGTERM, as ``subprocess`` does."""
    waiting = "import time; print('here', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.terminate()
        return program.wait(60)
