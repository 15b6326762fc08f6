"""Wakes another process on this machine at once: an empty datagram on a Unix socket that lies beside a file.

Rules: a poke carries no data and may get lost (full buffers, a listener that died), so listeners also look now and
then. A poke never blocks and never raises. The first process that pokes a dead listener deletes its socket file. Other
programs may write names of listeners into the file: a name that is not of our form is ignored, and a file that is no
socket is never deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable, Collection
from pathlib import Path

_LONGEST = 100
"""Bytes of a socket's path that every system takes (Linux: 108, macOS: 104, with the closing zero)."""


class Listener:
    """A socket that others poke. ``fileno`` is for the event loop; ``drain`` after it turned readable.

    :param file: the file beside which the socket is made.
    :param mode: the rights of the socket file: they say which users may poke it.
    :raises OSError: no such socket can be made here (no Unix sockets, a directory that cannot be written).
    """

    def __init__(self, file: Path, mode: int) -> None:
        self.name = f"{file.name}.{secrets.token_hex(6)}.wake"
        self._place = file.with_name(self.name)
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no Unix sockets")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            with contextlib.suppress(OSError):  # not every system lets it be said before there is a file
                os.fchmod(self._socket.fileno(), mode)
            _reach(self._place, self._socket.bind)
            self._place.chmod(mode)
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
        self._form = re.compile(re.escape(file.name) + r"\.[0-9a-f]{12}\.wake", re.ASCII)
        self._socket: socket.socket | None = None

    def poke(self, names: Collection[str]) -> list[str]:
        """Poke the listeners of these names; return the names of those that are dead."""
        return [name for name in names if not (self._form.fullmatch(name) and self._reaches(name))]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _reaches(self, name: str) -> bool:
        place = self._directory / name
        if not hasattr(socket, "AF_UNIX"):
            return True
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        try:
            _reach(place, lambda address: self._socket and self._socket.sendto(b"", address))
        except OSError as error:
            gone = error.errno in {errno.ECONNREFUSED, errno.ENOENT}
            if gone:
                _delete_socket(place)
            return not gone
        return True


def _delete_socket(place: Path) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(place.lstat().st_mode):
            place.unlink()


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
