"""Serves a few pages over HTTP: from a thread, and those of probes from a process of its own beside it.

Rules: a page is made in this thread, while the event loop may be busy or stuck. Where there is a process for the
probes, it takes the clients and passes on those that ask for another page; where it cannot be started, or has ended,
the thread takes them all, and the log says so once.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from celeriac.probes.answering import VERDICTS
from celeriac.probes.beside import Beside
from celeriac.probes.facts import FactsFile
from celeriac.probes.serving import PATIENCE, Page, Request, Serving, page_of, send

logger = logging.getLogger("celeriac.probes")

Pages = Mapping[str, Callable[[], Page]]
"""What makes the page of each path."""


class PageServer:
    """Serves pages to the clients of a listening socket until it is closed.

    :param facts: what a process beside this one answers the probes from; ``None`` for no such process.
    """

    def __init__(self, listening: socket.socket, pages: Pages, facts: FactsFile | None = None) -> None:
        self._listening = listening
        self._pages = pages
        self._facts = facts
        self._beside: Beside | None = None
        self._serving = Serving(self._answer)
        self._stop, self._stopped = socket.socketpair()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="celeriac-pages", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on, 0 for a Unix socket."""
        name = self._listening.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def beside(self) -> int | None:
        """The process that answers the probes, ``None`` where there is none."""
        return None if self._beside is None else self._beside.pid

    def start(self) -> None:
        """Begin to serve."""
        self._serving.watch(self._stopped, self._end)
        if self._facts is None:
            self._take_clients()
        else:
            self._start_beside(self._facts)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; return when no page is being made any more."""
        self._stop.close()
        if self._thread.is_alive():
            self._thread.join(2 * PATIENCE)
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        name = self._listening.getsockname()
        self._listening.close()
        if isinstance(name, str) and name:
            with suppress(OSError):
                Path(name).unlink()

    def _start_beside(self, facts: FactsFile) -> None:
        try:
            self._beside = Beside(
                self._listening, facts, [path for path in self._pages if path not in VERDICTS]
            )
        except OSError as error:
            self._take_clients_after(str(error))
        else:
            self._serving.watch(self._beside.channel, self._take_over)

    def _take_clients(self) -> None:
        self._serving.watch(self._listening, lambda: self._serving.accept(self._listening))

    def _take_clients_after(self, why: str) -> None:
        logger.warning(
            "probes are answered by a thread, since no process can do so (%s): they wait while a task keeps the "
            "interpreter lock",
            why,
        )
        self._take_clients()

    def _take_over(self) -> None:
        """Answer a client that the process passes on; take all clients if the process has ended."""
        assert self._beside is not None
        try:
            taken = self._beside.taken()
        except BlockingIOError:
            return
        if taken is not None:
            client, target, head = taken
            self._answer(client, Request("HEAD" if head else "GET", target))
            return
        self._serving.forget(self._beside.channel)
        how = self._beside.close()
        self._beside = None
        self._take_clients_after(f"it {how}")

    def _run(self) -> None:
        while not self._ended:
            self._serving.turn()
        self._serving.close()
        self._stopped.close()

    def _end(self) -> None:
        self._ended = True

    def _answer(self, client: socket.socket, request: Request) -> None:
        try:
            page = page_of(request, self._pages)
        except Exception:
            logger.exception("page %s could not be made", request.target)
            page = Page(500, b"the log has the error\n")
        send(client, page, head=request.method == "HEAD")
