"""A child process whose output can be waited for.

Rules: a wait ends as soon as the line appears, and fails with the whole output when the process ends or the time is up.
The child dies with the process that started it, even when that one is killed, where the system can do so.
"""

import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

STOP_TIMEOUT = 60.0
START_TIMEOUT = 90.0


class LoggedProcess:
    """A child process; its standard output and error are read line by line as they come.

    :param command: the program and its arguments.
    :param env: the child's whole environment; ``None`` passes on this process's own.
    :param cwd: the child's working directory.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.command = list(command)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._child = subprocess.Popen(
            _dying_with_parent(self.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            cwd=cwd,
        )
        assert self._child.stdout is not None
        self._reader = threading.Thread(target=self._read, args=[self._child.stdout], daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def output(self) -> str:
        """Everything the child has printed so far."""
        return "\n".join(self.lines)

    @property
    def running(self) -> bool:
        """Whether the child has not ended yet."""
        return self._child.poll() is None

    def wait_for(
        self, text: str, other: str | None = None, *, others_before: int = 0, timeout: float = START_TIMEOUT
    ) -> str:
        """The first line that contains ``text``, as soon as it is there.

        :param other: a text that will do as well, on its first line after the first ``others_before`` ones.
        :raises AssertionError: the child ended, or ``timeout`` seconds passed, before such a line.
        """

        def found() -> str | None:
            return self._find(text) or (self._find(other, others_before) if other is not None else None)

        with self._news:
            self._news.wait_for(lambda: self._ended or found() is not None, timeout)
            line = found()
        if line is None:
            how = "ended" if self._ended else f"took longer than {timeout:g} s"
            raise AssertionError(f"{self.command[0]} {how} before it printed {text!r}:\n{self.output}")
        return line

    def wait(self, *, timeout: float = STOP_TIMEOUT) -> int:
        """The exit status, once the child has ended by itself and its output is read.

        :raises subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        status = self._child.wait(timeout)
        self._reader.join(timeout)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone."""
        self._child.send_signal(number)

    def stop(self, *, timeout: float = STOP_TIMEOUT) -> int:
        """Ask the child to end, kill it when it does not within ``timeout`` seconds; its exit status."""
        self._child.terminate()
        try:
            return self.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End the child without asking, as a power cut would; its exit status."""
        self._child.kill()
        self._child.send_signal(signal.SIGCONT)
        return self.wait()

    def _find(self, text: str, before: int = 0) -> str | None:
        return next(islice((line for line in self.lines if text in line), before, None), None)

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        self._child.wait()
        with self._news:
            self._ended = True
            self._news.notify_all()


def _dying_with_parent(command: list[str]) -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command
