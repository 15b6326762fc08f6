"""A file with the id of the worker's process, for scripts that look after it.

Rules: of several processes that try to make it one succeeds; the file of a process that is gone is taken over; removed
at the end, if it is still this process's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from celeriac.cli.file_names import file_named
from celeriac.errors import ConfigError


@contextmanager
def pidfile(path: str | None, node: str) -> Iterator[None]:
    """Keep the file within the block.

    :param path: see ``file_named``; ``None`` keeps none.

    Raises ``ConfigError`` where another process has it, or where it cannot be written.
    """
    if path is None:
        yield
        return
    file = file_named(path, node)
    _take(file)
    try:
        yield
    finally:
        with suppress(OSError):
            if _holder(file) == os.getpid():
                file.unlink()


def _take(file: Path) -> None:
    try:
        for _ in range(2):
            with suppress(FileExistsError):
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                with os.fdopen(descriptor, "w") as opened:
                    opened.write(f"{os.getpid()}\n")
                return
            holder = _holder(file)
            if holder is not None and _runs(holder):
                raise ConfigError(
                    f"--pidfile {file} is that of process {holder}, which runs: stop it, or name another"
                )
            file.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--pidfile {file} cannot be written: {error.strerror}") from error
    raise ConfigError(f"--pidfile {file} is being made by another process")


def _holder(file: Path) -> int | None:
    """Return whose file it is, ``None`` where that cannot be read."""
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _runs(process: int) -> bool:
    if process == os.getpid():
        return False  # an earlier life of a container, where process ids begin anew
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
