"""A program on a terminal of its own: what a person would see there, and keys."""

import contextlib
import os
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte

WAIT = 60.0


class Terminal:
    """``with Terminal(command, 80, 24) as terminal`` runs a program, and draws what it writes as xterm would.

    :param env: the program's whole environment.
    """

    def __init__(
        self, command: Sequence[str], columns: int, lines: int, *, env: Mapping[str, str], cwd: Path
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._news = threading.Condition()  # its lock may be taken twice by one thread
        self._over = False
        self._master, device = os.openpty()
        termios.tcsetwinsize(device, (lines, columns))
        self._program = subprocess.Popen(
            command, stdin=device, stdout=device, stderr=device, env=env, cwd=cwd, start_new_session=True
        )
        os.close(device)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()
        self._program.wait(WAIT)
        self._reader.join(WAIT)
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen."""
        with self._news:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    @property
    def shows_cursor(self) -> bool:
        """Whether the cursor is visible."""
        return not self._screen.cursor.hidden

    def until(self, holds: Callable[[str], bool] | str) -> str:
        """Return what stands on the screen once it has this text, or this holds of it."""
        met = (lambda text: holds in text) if isinstance(holds, str) else holds
        with self._news:
            if not self._news.wait_for(lambda: met(self.text) or self._over, WAIT) or not met(self.text):
                raise AssertionError(f"the screen never shows it:\n{self.text}")
            return self.text

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size."""
        with self._news:
            self._screen.resize(lines, columns)
        termios.tcsetwinsize(self._master, (lines, columns))
        # The system sends it to those alone whose controlling terminal this is.
        self._program.send_signal(signal.SIGWINCH)

    def ended(self) -> int:
        """Return the exit status, once it has ended by itself."""
        return self._program.wait(WAIT)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # no process has the other end open any more
            while part := os.read(self._master, 65536):
                with self._news:
                    self._stream.feed(part)
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()
