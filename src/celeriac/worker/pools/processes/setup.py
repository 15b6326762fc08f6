"""The setup: what a worker sends to a child before its first call."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import spawn
from typing import Any

import msgspec

Begin = Callable[[], None]


class Setup(msgspec.Struct, frozen=True):
    """The setup of a worker's children.

    :param begin: prepares a process before it imports tasks (logging, modules that must come first).
    :param references: the plain tasks of the app, each pickled by itself.
    :param places: URLs of broker and result store, for tasks that a function sends and progress that it reports.
    :param lifespans: pickled generator functions, run around the calls of each child.
    :param around: pickled functions; what they return is entered around each call.
    :param max_memory: KiB of peak memory from which on a child reports that it used more.
    :param collects: whether a child decides when it collects cyclic garbage.
    """

    begin: Begin | None
    references: Sequence[bytes]
    places: tuple[str, str]
    lifespans: bytes
    around: bytes
    max_memory: int | None
    collects: bool = True


def written(setup: Setup) -> bytes:
    """Return a setup as bytes. The import paths come first, since a new process needs them to read the rest."""
    about = spawn.get_preparation_data(multiprocessing.current_process().name)
    # The key's own class refuses to be pickled outside of multiprocessing.
    about["authkey"] = bytes(about["authkey"])
    return pickle.dumps((about, pickle.dumps(setup)))


def entered(data: bytes | bytearray | memoryview) -> tuple[Setup, Mapping[bytes, Any]]:
    """Give this process the worker's import paths, main module and tasks; return the setup and the tasks by reference.

    A task whose module cannot be imported is left out: each call of it tries again, and fails with the error.
    """
    about, rest = pickle.loads(data)  # noqa: S301 - our own bytes
    spawn.prepare(about)
    setup: Setup = pickle.loads(rest)  # noqa: S301 - our own bytes
    if setup.begin is not None:
        setup.begin()
    tasks = {}
    for reference in setup.references:
        with suppress(Exception):
            tasks[reference] = pickle.loads(reference)  # noqa: S301 - our own bytes
    return setup, tasks


def program(module: str) -> list[str]:
    """Return the command that runs ``main`` of a module of this package with this interpreter, flags included."""
    flags: list[str] = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined] # noqa: SLF001
    root = str(__file__).rpartition("/celeriac/")[0]
    code = f"import sys; sys.path.insert(0, {root!r}); from {__package__}.{module} import main; main()"
    return [spawn.get_executable() or sys.executable, *flags, "-c", code]
