"""A file that is touched once a second while a worker lives, for where there is no port to ask."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from celeriac.errors import ConfigError

logger = logging.getLogger("celeriac.probes")

EVERY = 1.0
"""Seconds between two touches."""


class HeartbeatFile:
    """A file whose time of change says when the worker lived last. Raises ``ConfigError`` if it cannot be written."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._touched = float("-inf")
        self._complained = False
        try:
            self._path.touch()
        except OSError as error:
            raise ConfigError(
                f"heartbeat file {path} cannot be written: {error.strerror or error}"
            ) from error

    def beat(self) -> None:
        """Touch the file if the last touch was a second ago; one failure is logged."""
        now = monotonic()
        if now - self._touched < EVERY * 0.9:
            return
        self._touched = now
        try:
            self._path.touch()
            self._complained = False
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning("heartbeat file %s cannot be touched: %s", self._path, error)

    def remove(self) -> None:
        """Remove the file: the worker has ended."""
        with suppress(OSError):
            self._path.unlink()


class HeartbeatThread:
    """Touches the file from a thread, each second in which ``lives`` returns true."""

    def __init__(self, file: HeartbeatFile, lives: Callable[[], bool]) -> None:
        self._file = file
        self._lives = lives
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to touch."""
        self._thread.start()

    def close(self) -> None:
        """Stop touching."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            if self._lives():
                self._file.beat()
