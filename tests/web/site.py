"""A dashboard in a process of its own, and a browser's way to ask it."""

import html
import http.client
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from tests.servers import LoggedProcess

PATIENCE = 60.0


class Site:
    """``with Site(url, folder) as site`` serves the dashboard of a broker on a free port.

    :param options: further options of ``celeriac web``.
    :param backend: the result store's URL, if it is another.
    :param python: where celeriac is installed, if not here.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        options: Sequence[str] = (),
        backend: str = "",
        python: str = sys.executable,
    ) -> None:
        self._command = [python, "-m", "celeriac", "web", "-b", url, "-p", "0"]
        self._command += ["--backend", backend or url]
        self._command += ["--history", str(folder / "history.db"), *options]
        self._folder = folder
        self.port = self.metrics_port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start it, and wait until browsers can connect."""
        self.process = LoggedProcess(self._command, cwd=self._folder)
        line = self.process.wait_for("dashboard at http://", timeout=PATIENCE)
        found = re.search(r":(\d+)/", line)
        assert found is not None
        self.port = int(found[1])

    def __exit__(self, *_: object) -> None:
        assert self.process.stop(timeout=PATIENCE) == 0

    def ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], str]:
        """Send one request; return status, headers and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, f"/{path}", body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read().decode()
        finally:
            connection.close()

    def page(self, path: str) -> str:
        """Return a page, which must be there."""
        status, _, text = self.ask("GET", path)
        assert status == 200, f"{path}: {status} {text[:500]}"
        return text

    def shows(self, path: str, text: str) -> str:
        """Return a page when it shows this text, in HTML or out of it."""
        return self.when(path, lambda page: text in page or text in html.unescape(page), text)

    def told(self, id: str, state: str) -> str:
        """Return the page of a task when events have told of this state; the result store may know it before."""
        mark = f"state-{state.lower()}"
        return self.when(f"tasks/{id}", lambda page: mark in page and "<li>received" in page, state)

    def when(self, path: str, holds: Callable[[str], bool], what: str) -> str:
        """Return a page when something holds of it; nobody tells when that is."""
        end = time.monotonic() + PATIENCE
        while True:
            status, _, page = self.ask("GET", path)
            if status == 200 and holds(page):
                return page
            assert time.monotonic() < end, f"{path} never shows {what!r}: {status} {page}"
            time.sleep(0.1)

    def post(self, path: str, **fields: str | Sequence[str]) -> str:
        """Press a button; return what the dashboard says it has done."""
        status, headers, text = self.ask(
            "POST",
            path,
            urlencode(fields, doseq=True),
            {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"},
        )
        assert status == 303, f"{path}: {status} {text[:500]}"
        return headers["location"]
