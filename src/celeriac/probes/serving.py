"""Answers clients over HTTP with a few pages, with sockets of the standard library.

Rules: one thread serves all, and no client can hold it up: each has ``PATIENCE`` seconds to ask and to read. Nothing
but the standard library is imported, since a small process that answers probes runs this too. Each call of the system
lets another thread go on, which may keep the interpreter lock for the switch interval, 5 ms: that is shortened for as
long as a client is answered, and not otherwise, since every thread would pay for it.
"""

from __future__ import annotations

import selectors
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from time import monotonic
from typing import NamedTuple

PATIENCE = 1.0
"""Seconds that a client has for its request, and for reading the answer."""

LONGEST = 16 * 1024
"""The most bytes of a request."""

MOST = 64
"""The most clients that are waited for at once; further ones wait in the system's queue."""

TURN = 0.0001
"""Seconds after which another thread hands over the interpreter lock while a client is answered."""

PLAIN = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """The answer to a request.

    :param status: an HTTP status, such as 200.
    """

    status: int
    body: bytes
    content_type: str = PLAIN


class Request(NamedTuple):
    """What a client asks for; with ``HEAD`` it wants no body."""

    method: str
    target: str


Answer = Callable[[socket.socket, Request], None]
"""Answers one client and closes it, or has it answered by somebody else."""


class Serving:
    """Answers clients in the thread that calls ``turn``.

    :param answer: called for each client whose request is there.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._awaited: dict[socket.socket, _Asking] = {}
        self._selector = selectors.DefaultSelector()

    def watch(self, source: socket.socket, on_ready: Callable[[], None]) -> None:
        """Call this whenever there is something to read from a socket."""
        source.setblocking(False)
        self._selector.register(source, selectors.EVENT_READ, on_ready)

    def forget(self, source: socket.socket) -> None:
        """Watch a socket no more."""
        self._selector.unregister(source)

    def turn(self, longest: float | None = None) -> None:
        """Wait until something is ready, and deal with it.

        :param longest: seconds to wait at most; ``None`` for as long as it takes.
        """
        if self._awaited:
            longest = PATIENCE if longest is None else min(longest, PATIENCE)
        ready = self._selector.select(longest)
        with _short_turns():
            for key, _ in ready:
                key.data()
            self._drop_the_slow()

    def accept(self, listening: socket.socket) -> None:
        """Take a client; answer at once if its request is there already: the fewer calls, the sooner the answer."""
        try:
            client, _ = listening.accept()
        except OSError:  # it has gone already, or there are too many open files
            return
        asking = _Asking(monotonic() + PATIENCE)
        if not self._hear(client, asking):
            self._awaited[client] = asking
            self._selector.register(client, selectors.EVENT_READ, lambda: self._hear_again(client))
            if len(self._awaited) > MOST:
                self._leave(next(iter(self._awaited)))

    def close(self) -> None:
        """Leave all clients."""
        for client in list(self._awaited):
            self._leave(client)
        self._selector.close()

    def _hear(self, client: socket.socket, asking: _Asking) -> bool:
        """Read what is there; return whether the client is done with."""
        try:
            heard = client.recv(LONGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            heard = b""
        asking.text += heard
        if asking.is_complete:
            self._answer(client, asking.request)
            return True
        if heard and len(asking.text) <= LONGEST:
            return False
        client.close()
        return True

    def _hear_again(self, client: socket.socket) -> None:
        asking = self._awaited.get(client)
        if asking is not None and self._hear(client, asking):
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


class _Asking:
    """A client that has not sent its whole request yet."""

    __slots__ = ("text", "until")

    def __init__(self, until: float) -> None:
        self.text = bytearray()
        self.until = until

    @property
    def is_complete(self) -> bool:
        return b"\r\n\r\n" in self.text or b"\n\n" in self.text

    @property
    def request(self) -> Request:
        method, _, rest = self.text.partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        return Request(method.decode("latin-1"), target.decode("latin-1"))


def page_of(request: Request, pages: Mapping[str, Callable[[], Page]], others: Sequence[str] = ()) -> Page:
    """Return the page that a request asks for, or what says why there is none.

    :param others: paths that somebody else answers.
    """
    if request.method not in ("GET", "HEAD"):
        return Page(405, b"only GET and HEAD\n")
    make = pages.get(request.target)
    if make is None:
        return Page(404, f"there are {', '.join(sorted([*pages, *others]))}\n".encode())
    return make()


def send(client: socket.socket, page: Page, *, head: bool) -> None:
    """Send a page to a client, and close it.

    :param head: without the body.
    """
    start = (
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    answer = start.encode() + (b"" if head else page.body)
    with suppress(OSError), client:  # it does not read, or has gone
        sent = client.send(answer, socket.MSG_DONTWAIT)
        if sent < len(answer):
            client.settimeout(PATIENCE)
            client.sendall(answer[sent:])


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
