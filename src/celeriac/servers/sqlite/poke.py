"""Wakes another process on this machine at once: an empty datagram on a Unix socket that lies beside a file.

Rules: a poke carries nothing and may get lost (buffers, a listener that died), so whoever waits also looks now and
then; it never blocks and never raises; a socket file whose owner is gone is deleted by the first who pokes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Callable, Collection
from pathlib import Path

_LONGEST = 100
"""Bytes of a socket's path that every system takes (Linux: 108, macOS: 104, with the closing zero)."""


class Listener:
    """A socket that others poke. ``fileno`` is for the event loop; ``drain`` after it turned readable.

    :param file: the file beside which the socket is made.
    :raises OSError: no such socket can be made here (no Unix sockets, a directory that cannot be written).
    """

    def __init__(self, file: Path) -> None:
        self.name = f"{file.name}.{secrets.token_hex(6)}.wake"
        self._place = file.with_name(self.name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            _reach(self._place, self._socket.bind)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """Forget the pokes that came."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)

    def close(self) -> None:
        self._socket.close()
        self._place.unlink(missing_ok=True)


class Poker:
    """Pokes listeners.

    :param file: the file beside which their sockets are.
    """

    def __init__(self, file: Path) -> None:
        self._directory = file.parent
        self._socket: socket.socket | None = None

    def poke(self, names: Collection[str]) -> list[str]:
        """Poke the listeners of these names; return those who are gone for good."""
        return [name for name in names if not self._reaches(self._directory / name)]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _reaches(self, place: Path) -> bool:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        try:
            _reach(place, lambda address: self._socket and self._socket.sendto(b"", address))
        except OSError as error:
            gone = error.errno in {errno.ECONNREFUSED, errno.ENOENT}
            if gone:
                place.unlink(missing_ok=True)
            return not gone
        return True


def _reach(place: Path, act: Callable[[str], object]) -> None:
    """Call ``act`` with an address of the place; a long path goes by its open directory, where the system has that."""
    if len(os.fsencode(place)) <= _LONGEST:
        act(str(place))
        return
    directory = os.open(place.parent, os.O_RDONLY)
    try:
        act(f"/proc/self/fd/{directory}/{place.name}")
    finally:
        os.close(directory)
