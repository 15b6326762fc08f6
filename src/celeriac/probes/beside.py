"""The worker's side of the process that answers its probes: starts it, and takes the clients that it passes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from celeriac.probes.facts import FactsFile

_ROOT = str(Path(__file__).parents[2])
_PROGRAM = f"import sys; sys.path.append({_ROOT!r}); from celeriac.probes.answering import main; main()"

_END_WAIT = 2.0
"""Seconds that the process has to end after the request."""


class Beside:
    """The process that answers the clients of one listening socket.

    :param others: the paths of the pages that it passes on.
    :ivar channel: clients come out of it, and its end says that the process has ended.

    Raises ``OSError`` where no process can be started.
    """

    def __init__(self, listening: socket.socket, facts: FactsFile, others: Sequence[str]) -> None:
        self._others = others
        self.channel, theirs = socket.socketpair()
        descriptors = (listening.fileno(), facts.descriptor, theirs.fileno())
        given = [*map(str, (*descriptors, os.getpid())), *others]
        try:
            # A session of its own: Ctrl-C and Ctrl-Z are for the worker. What it prints is an error of its own.
            self._process = subprocess.Popen(  # noqa: S603 - no shell, and nothing of it comes from outside
                [sys.executable or "python3", "-I", "-S", "-c", _PROGRAM, *given],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=descriptors,
            )
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def taken(self) -> tuple[socket.socket, str, bool] | None:
        """Return a client that is passed on, the path that it asks for, and whether without body; at the end ``None``.

        Raises ``BlockingIOError`` where none is there.
        """
        try:
            wanted, descriptors, _, _ = socket.recv_fds(self.channel, 1, 1)
        except BlockingIOError:
            raise
        except OSError:
            return None
        if not wanted or not descriptors:
            return None
        client = socket.socket(fileno=descriptors[0])
        client.setblocking(True)
        return client, self._others[wanted[0] // 2], bool(wanted[0] % 2)

    def close(self) -> str:
        """End the process; return how it ended."""
        self.channel.close()
        try:
            self._process.wait(_END_WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return f"ended with {self._process.returncode}"
