"""Serves a few pages over HTTP from a thread of its own, with sockets of the standard library.

Rules: one thread serves all, and no client can hold it up: each has ``PATIENCE`` seconds to ask and to read. A page is
made in this thread, while the event loop may be busy or stuck. Each call of the system lets another thread go on, which
may keep the interpreter lock for the switch interval, 5 ms: that is shortened for as long as a client is answered, and
not otherwise, since every thread would pay for it.
"""

from __future__ import annotations

import logging
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from time import monotonic

import msgspec

from celeriac.errors import ConfigError

logger = logging.getLogger("celeriac.probes")

PATIENCE = 1.0
"""Seconds that a client has for its request, and for reading the answer."""

LONGEST = 16 * 1024
"""The most bytes of a request."""

MOST = 64
"""The most clients that are waited for at once; further ones wait in the system's queue."""

TURN = 0.0001
"""Seconds after which another thread hands over the interpreter lock while a client is answered."""

PLAIN = "text/plain; charset=utf-8"


class Page(msgspec.Struct, frozen=True):
    """The answer to a request.

    :param status: an HTTP status, such as 200.
    """

    status: int
    body: bytes
    content_type: str = PLAIN


Pages = Mapping[str, Callable[[], Page]]
"""What makes the page of each path."""


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


class PageServer:
    """Serves pages at one address from ``start`` to ``close``.

    :param listening: a socket that listens; it is closed at the end, and so is its file removed.
    """

    def __init__(self, listening: socket.socket, pages: Pages) -> None:
        self._listening = listening
        self._pages = pages
        self._awaited: dict[socket.socket, _Asking] = {}
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="celeriac-pages", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on, 0 for a Unix socket."""
        name = self._listening.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    def start(self) -> None:
        """Begin to serve."""
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; return when no page is being made any more."""
        self._stop.close()
        if self._thread.is_alive():
            self._thread.join(2 * PATIENCE)
        name = self._listening.getsockname()
        self._listening.close()
        if isinstance(name, str) and name:
            with suppress(OSError):
                Path(name).unlink()

    def _run(self) -> None:
        while True:
            ready = self._selector.select(PATIENCE if self._awaited else None)
            with _short_turns():
                if self._serve([key.fileobj for key, _ in ready]):
                    return

    def _serve(self, ready: Sequence[object]) -> bool:
        """Deal with the sockets that are ready; return whether it is the end."""
        for one in ready:
            if one is self._stopped:
                self._end()
                return True
            if one is self._listening:
                self._accept()
            else:
                assert isinstance(one, socket.socket)
                self._hear_again(one)
        self._drop_the_slow()
        return False

    def _accept(self) -> None:
        """Take a client; answer at once if its request is there already: the fewer calls, the sooner the answer."""
        try:
            client, _ = self._listening.accept()
        except OSError:  # it has gone already, or there are too many open files
            return
        asking = _Asking(monotonic() + PATIENCE)
        if not self._hear(client, asking):
            self._awaited[client] = asking
            self._selector.register(client, selectors.EVENT_READ)
            if len(self._awaited) > MOST:
                self._leave(next(iter(self._awaited)))

    def _hear(self, client: socket.socket, asking: _Asking) -> bool:
        """Read what is there; return whether the client is done with."""
        try:
            heard = client.recv(LONGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            heard = b""
        asking.request += heard
        if asking.is_complete:
            self._answer(client, asking.request)
        elif heard and len(asking.request) <= LONGEST:
            return False
        client.close()
        return True

    def _answer(self, client: socket.socket, request: bytearray) -> None:
        method, _, rest = request.partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        page = self._page(bytes(method), target)
        head = (
            f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\nContent-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        answer = head.encode() + (b"" if method == b"HEAD" else page.body)
        with suppress(OSError):  # the client does not read, or has gone
            sent = client.send(answer, socket.MSG_DONTWAIT)
            if sent < len(answer):
                client.settimeout(PATIENCE)
                client.sendall(answer[sent:])

    def _page(self, method: bytes, target: str) -> Page:
        if method not in (b"GET", b"HEAD"):
            return Page(405, b"only GET and HEAD\n")
        make = self._pages.get(target)
        if make is None:
            return Page(404, f"there are {', '.join(sorted(self._pages))}\n".encode())
        try:
            return make()
        except Exception:
            logger.exception("page %s could not be made", target)
            return Page(500, b"the log has the error\n")

    def _hear_again(self, client: socket.socket) -> None:
        if self._hear(client, self._awaited[client]):
            del self._awaited[client]
            # What is closed has left the selector of the system; the one of Python still knows it by the object.
            self._selector.unregister(client)

    def _drop_the_slow(self) -> None:
        now = monotonic()
        for client in [client for client, asking in self._awaited.items() if asking.until < now]:
            self._leave(client)

    def _leave(self, client: socket.socket) -> None:
        del self._awaited[client]
        self._selector.unregister(client)
        client.close()

    def _end(self) -> None:
        for client in list(self._awaited):
            self._leave(client)
        self._selector.close()
        self._stopped.close()


class _Asking:
    """A client that has not sent its whole request yet."""

    __slots__ = ("request", "until")

    def __init__(self, until: float) -> None:
        self.request = bytearray()
        self.until = until

    @property
    def is_complete(self) -> bool:
        return b"\r\n\r\n" in self.request or b"\n\n" in self.request


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let other threads hand over the interpreter lock after ``TURN`` seconds within the block.

    Where that is so already, another server answers as well, and it is for that one to end it.
    """
    usual = sys.getswitchinterval()
    if usual < 2 * TURN:
        yield
        return
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


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
