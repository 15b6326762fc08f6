"""Answers the probes of one worker, in a process of its own that the worker's interpreter lock cannot hold up.

Rules: nothing but the standard library is imported, and nothing is known but what the worker writes to the facts. A
client that asks for another page is given to the worker. The process ends with the worker, however that ends, and
answers nothing after it. Signals that ask a whole group of processes to end are ignored: the worker may be finishing
its work.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from celeriac.probes.facts import Facts, FactsFile
from celeriac.probes.serving import Page, Request, Serving, page_of, send

PARENT_CHECK = 0.5
"""Seconds between looks at whether the worker lives: a process forked from it may hold its end of the channel."""

VERDICTS = {"/livez": Facts.live, "/readyz": Facts.ready, "/startupz": Facts.started}

_STARTING = Page(503, b"starting\n")


class Answering:
    """Answers the clients of one socket.

    :param channel: where clients are given to the worker; it ends with the worker.
    :param parent: the worker's process.
    :param others: the paths of the pages that the worker makes itself.
    """

    def __init__(
        self,
        listening: socket.socket,
        facts: FactsFile,
        channel: socket.socket,
        parent: int,
        others: Sequence[str],
    ) -> None:
        self._listening = listening
        self._channel = channel
        self._parent = parent
        self._others = others
        self._pages = pages_of(facts.read)
        self._serving = Serving(self._answer)
        self._ended = False

    def run(self) -> None:
        """Answer until the worker ends, or closes the channel."""
        self._serving.watch(self._listening, self._accept)
        self._serving.watch(self._channel, self._end)
        while not self._ended:
            self._serving.turn(PARENT_CHECK)
            self._look_for_parent()

    def _accept(self) -> None:
        self._look_for_parent()
        if not self._ended:
            self._serving.accept(self._listening)

    def _look_for_parent(self) -> None:
        if os.getppid() != self._parent:
            self._ended = True

    def _end(self) -> None:
        self._ended = True

    def _answer(self, client: socket.socket, request: Request) -> None:
        if request.target in self._others and request.method in ("GET", "HEAD"):
            self._pass_on(client, request)
        else:
            page = page_of(request, self._pages, self._others)
            send(client, page, head=request.method == "HEAD")

    def _pass_on(self, client: socket.socket, request: Request) -> None:
        """Give a client to the worker, which knows from one byte what it wants."""
        with client:
            wanted = 2 * self._others.index(request.target) + (request.method == "HEAD")
            try:
                socket.send_fds(self._channel, [bytes([wanted])], [client.fileno()], socket.MSG_DONTWAIT)
            except OSError:  # the worker does not take what it was given before, or has ended
                send(client, Page(503, b"the worker does not answer\n"), head=False)


def pages_of(read: Callable[[], Facts | None]) -> Mapping[str, Callable[[], Page]]:
    """Return what answers the probes, from the facts that ``read`` returns."""

    def page(path: str) -> Callable[[], Page]:
        def make() -> Page:
            facts = read()
            return _STARTING if facts is None else VERDICTS[path](facts, monotonic()).page()

        return make

    return {path: page(path) for path in VERDICTS}


def main() -> None:
    """Answer as the arguments say: descriptors of socket, facts and channel, the worker's process, its own paths."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    listening, facts, channel, parent = map(int, sys.argv[1:5])
    with socket.socket(fileno=listening) as clients, socket.socket(fileno=channel) as worker:
        Answering(clients, FactsFile(facts), worker, parent, sys.argv[5:]).run()
