"""``celeriac-probe``: asks a worker of this machine whether it lives.

It imports nothing of celeriac, so it starts at once, and can be run by itself:
``python -I -S .../celeriac_probe.py live --file /tmp/beat --max-age 10``.
"""

from __future__ import annotations

import os
import sys
import time

USAGE = """\
usage: celeriac-probe live --file PATH [--max-age SECONDS]
       celeriac-probe live|ready|started --port PORT | --socket PATH [--timeout SECONDS]

Ends with 0 if it is so, with 1 if it is not, with 2 for wrong usage.
"""

PAGES = {"live": "/livez", "ready": "/readyz", "started": "/startupz"}
NUMBERS = ("--max-age", "--timeout", "--port")


def main(arguments: list[str] | None = None) -> int:
    """Probe as the arguments say; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        what, options = given[0], _options(given[1:])
        if what not in PAGES or len(options.keys() & {"--file", "--port", "--socket"}) != 1:
            raise ValueError(what)
        if "--file" in options and (what != "live" or "--timeout" in options):
            raise ValueError(what)
    except (IndexError, KeyError, ValueError):
        sys.stderr.write(USAGE)
        return 2
    return _file(options) if "--file" in options else _ask(what, options)


def _options(given: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    words = iter([part for word in given for part in (word.split("=", 1) if word[:2] == "--" else [word])])
    for name in words:
        if name not in ("--file", "--socket", *NUMBERS):
            raise KeyError(name)
        options[name] = next(words, "")
        if name in NUMBERS:
            float(options[name])
    return options


def _file(options: dict[str, str]) -> int:
    path = options["--file"]
    try:
        age = time.time() - os.stat(path).st_mtime  # noqa: PTH116 - the import of pathlib takes as long as all the rest
    except OSError as error:
        return _say(f"{path}: {error.strerror}", 1)
    if age > float(options.get("--max-age", "10")):
        return _say(f"{path}: touched {age:.1f} s ago", 1)
    return 0


def fetch(at: str | int, target: str, timeout: float) -> tuple[int, bytes]:
    """Return status and body of a page. Raises ``OSError`` where nobody answers in time.

    :param at: the path of a Unix socket, or a port of this machine.
    :param timeout: seconds for all of it.
    """
    import socket  # noqa: PLC0415 - half of the time that a look at a file takes

    until = time.monotonic() + timeout
    family, address = (socket.AF_INET, ("127.0.0.1", at)) if isinstance(at, int) else (socket.AF_UNIX, at)
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            if time.monotonic() > until:
                raise TimeoutError(f"no whole answer within {timeout:g} s")
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(None, 2)[1:2]
    if not status or not status[0].isdigit():
        raise OSError("the answer is no HTTP")
    return int(status[0]), body


def _ask(what: str, options: dict[str, str]) -> int:
    at = int(options["--port"]) if "--port" in options else options["--socket"]
    try:
        status, body = fetch(at, PAGES[what], float(options.get("--timeout", "1")))
    except OSError as error:
        return _say(f"no answer: {error}", 1)
    return 0 if status == 200 else _say(body.decode(errors="replace").strip(), 1)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
