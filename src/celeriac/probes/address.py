"""Where pages are served."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec

from celeriac.errors import ConfigError


class Address(msgspec.Struct, frozen=True):
    """Where pages are served: on a port, or on a Unix socket.

    :param host: an address of this machine; empty for all of them.
    """

    port: int = 0
    host: str = ""
    path: str | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host or '*'}:{self.port}"

    def listen(self) -> socket.socket:
        """Return a listening socket. Raises ``ConfigError`` where the system refuses one."""
        try:
            return self._listen_on_port() if self.path is None else _listen_on_path(self.path)
        except OSError as error:
            raise ConfigError(f"{self} cannot be listened on: {error.strerror or error}") from error

    def _listen_on_port(self) -> socket.socket:
        if self.host:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, self.port), family=family)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", self.port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", self.port))


def _listen_on_path(path: str) -> socket.socket:
    file = Path(path)
    if file.is_socket() and not _is_served(path):
        file.unlink()  # a process that was killed has left it
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        file.chmod(0o660)
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except OSError:
            return False
        return True
