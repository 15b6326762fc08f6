"""A terminal for a command that runs in this process, or in one of its own."""

import os
import pty
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from celeriac.cli.main import celeriac


class Terminal:
    """The two ends of a pseudo-terminal; what is written to ``device`` is collected.

    :param columns: its width.
    """

    def __init__(self, columns: int = 80) -> None:
        self._main, self.device = pty.openpty()
        termios.tcsetwinsize(self.device, (40, columns))
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Return when this was written."""
        end = time.monotonic() + 60
        while text not in b"".join(self._parts).decode(errors="replace"):
            assert time.monotonic() < end, self._parts
            time.sleep(0.02)

    def close(self) -> str:
        """Everything that was written, once the last writer has closed the device."""
        os.close(self.device)
        self._reader.join(30)
        os.close(self._main)
        return b"".join(self._parts).decode()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._main, 65536)
            except OSError:  # nobody holds the device any more
                return
            if not part:
                return
            self._parts.append(part)


def written_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[], None], columns: int = 80
) -> str:
    """What a terminal of this width got from a function that prints."""
    terminal = Terminal(columns)
    with (
        monkeypatch.context() as patch,
        open(terminal.device, "w", encoding="utf-8", newline="", closefd=False) as stream,
    ):
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        write()
    return terminal.close()


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str, columns: int = 80) -> tuple[int, str]:
    """The exit code of a command, and what a terminal got from it."""
    codes = []

    def run() -> None:
        with pytest.raises(SystemExit) as ended:
            celeriac.main(arguments)
        codes.append(int(ended.value.code or 0))

    written = written_to_a_terminal(monkeypatch, run, columns)
    return codes[0], written


def start_on_a_terminal(
    terminal: Terminal, arguments: Sequence[str], env: Mapping[str, str], cwd: Path
) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own that writes to the terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "celeriac", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=terminal.device,
        stderr=terminal.device,
        env={**os.environ, "TERM": "xterm", **env},
        cwd=cwd,
    )
