"""Repeats one command on a Redis, for a parent that may be too busy to do so: a program of its own.

Rules: only the standard library is imported, and of that only what is needed: this runs by itself (``python -I -S
renewal.py``), and every import costs time and memory. Orders come as lines of JSON, and the last one holds. The
program ends when the orders end or the parent does. Signals that ask a whole group of processes to end are ignored,
since the parent may be finishing its work.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

_PARENT_CHECK = 0.5
"""Seconds between looks at whether the parent lives: a process forked from it may hold the orders open."""

_LONGEST_RETRY = 1.0

_LAST_LOOK = 0.05
"""Seconds between looks when the orders have ended."""

READY = "ready"
"""The first report."""


class Refused(Exception):
    """The server answered with an error."""


def serve(orders: int, reports: int, parent: int | None) -> None:
    """Carry out the orders until they end.

    :param orders: descriptor that lines of JSON come from: ``server``, ``command``, ``period`` in seconds,
        ``last``, which is run once when the parent has died.
    :param reports: descriptor that a line is written to when it starts (``READY``), when it begins to fail (what went
        wrong), and each time that the command was run (an empty line).
    :param parent: the process whose end is the end of the orders too; ``None`` for not to look.
    """
    os.set_blocking(reports, False)
    reporter, incoming, renewal = _Reporter(reports), select.poll(), Renewal()
    incoming.register(orders, select.POLLIN)
    reporter.write(READY)
    text = b""
    goes_on = True
    while goes_on:
        # What the parent ordered before its end is read all the same.
        goes_on = parent is None or os.getppid() == parent
        if incoming.poll(1000 * min(_PARENT_CHECK, renewal.pause())):
            chunk = os.read(orders, 65536)
            if not chunk:
                break
            *lines, text = (text + chunk).split(b"\n")
            if lines:
                renewal.follow(json.loads(lines[-1]))
        elif renewal.pause() == 0:
            reporter.report(renewal.run())
    if parent is not None and _has_died(parent):
        renewal.run_last()
    renewal.close()


def _has_died(parent: int) -> bool:
    """Return whether the parent has ended; its descriptors are closed a moment before that shows."""
    for _ in range(10):
        if os.getppid() != parent:
            return True
        time.sleep(_LAST_LOOK)
    return False


class Renewal:
    """The command, when it is due, and the connection it goes over."""

    def __init__(self) -> None:
        self._order: dict[str, Any] = {}
        self._server: Server | None = None
        self._due = float("inf")

    def pause(self) -> float:
        """Return the seconds until the command is due."""
        return max(0.0, self._due - time.monotonic())

    def follow(self, order: dict[str, Any]) -> None:
        """Carry out this order from now on; nothing, if it names no command."""
        if order["server"] != self._order.get("server"):
            self.close()
            self._server = Server(order["server"])
        self._order = order
        self._due = time.monotonic() if order.get("command") else float("inf")

    def run(self) -> str:
        """Run the command; return what went wrong, ``""`` if nothing did."""
        assert self._server is not None
        pause: float = self._order["period"]
        try:
            self._server.run(self._order["command"])
        except Exception as error:  # noqa: BLE001 - whatever it was, the next try may not meet it
            self._server.close()
            pause = min(pause, _LONGEST_RETRY)
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        finally:
            self._due = time.monotonic() + pause
        return ""

    def run_last(self) -> None:
        """Run the last command of all, once: if that fails, others find out by themselves."""
        if self._server is not None and self._order["last"]:
            try:
                self._server.run(self._order["last"])
            except Exception:  # noqa: BLE001 - nobody is left to be told
                return

    def close(self) -> None:
        """Close the connection."""
        if self._server is not None:
            self._server.close()


class Server:
    """The Redis that is renewed at, by as much of its protocol (RESP2) as that takes.

    Between the moment that Sentinel names a new master and the moment that the former one is demoted both take writes,
    and workers are connected to either: a command is run at both.

    :param place: ``addresses`` or ``path``, ``greeting`` (commands that log in), ``tls`` (``ssl_...`` options),
        ``timeout`` in seconds; with ``master``, addresses and ``sentinel_greeting`` are those of sentinels.
    """

    def __init__(self, place: dict[str, Any]) -> None:
        self._place = place
        self._sentinels = _Sentinels(place) if place.get("master") else None
        self._address: tuple[str, int] | None = None
        self._connection: _Connection | None = None
        self._former: _Connection | None = None

    def run(self, command: Sequence[Any] | bytes) -> Any:
        """Return the answer to a command, over a new connection where the old one was closed while it was idle."""
        answer = self._run(command)
        if self._sentinels is not None:
            self._run_at_former(command)
            self._run_at_new(command, self._sentinels)
        return answer

    def close(self) -> None:
        """Drop the connections; the next command opens one, after a failover to the new master."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._drop_former()
        if self._sentinels is not None:
            self._sentinels.close()

    def _run(self, command: Sequence[Any] | bytes) -> Any:
        if self._connection is not None:
            try:
                return self._connection.ask(command)
            except TimeoutError:
                raise
            except OSError:
                self._connection.close()
                self._connection = None
        self._connection = self._connect()
        return self._connection.ask(command)

    def _run_at_former(self, command: Sequence[Any] | bytes) -> None:
        """Run it at the master of before, until that is demoted."""
        if self._former is None:
            return
        try:
            self._former.ask(command)
        except (OSError, Refused):
            self._drop_former()

    def _run_at_new(self, command: Sequence[Any] | bytes, sentinels: _Sentinels) -> None:
        """Run it at a master that was named since the last time, and from now on."""
        try:
            address = sentinels.ask()
        except (OSError, Refused):
            return  # the next one is asked the next time
        if address == self._address:
            return
        connection = _dial(self._place, address, self._place["greeting"])
        self._drop_former()
        self._former, self._connection, self._address = self._connection, connection, address
        connection.ask(command)

    def _drop_former(self) -> None:
        former, self._former = self._former, None
        if former is not None:
            former.close()

    def _connect(self) -> _Connection:
        place = self._place
        if self._sentinels is not None:
            self._address = self._sentinels.find()
            return _dial(place, self._address, place["greeting"])
        return _dial(place, place.get("path") or place["addresses"][0], place["greeting"])


def written(command: Sequence[Any]) -> bytes:
    """Return a command as it is sent."""
    parts = [str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class _Sentinels:
    """Asks for the master over one connection, to the sentinel that answered last."""

    def __init__(self, place: dict[str, Any]) -> None:
        self._place = place
        self._addresses = list(place["addresses"])
        self._connection: _Connection | None = None

    def find(self) -> tuple[str, int]:
        """Return the master's host and port; one sentinel after the other is asked until one names it."""
        failure: Exception | None = None
        for _ in self._place["addresses"]:
            try:
                return self.ask()
            except (OSError, Refused) as error:
                failure = error
        raise Refused(f"no sentinel knows the master {self._place['master']!r}") from failure

    def ask(self) -> tuple[str, int]:
        """Return what one sentinel says; if it does not, raise the error, and ask another the next time."""
        try:
            if self._connection is None:
                self._connection = _dial(self._place, self._addresses[0], self._place["sentinel_greeting"])
            answer = self._connection.ask(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._place["master"]])
            if not answer:
                raise Refused("it knows no such master")
        except BaseException:
            self.close()
            self._addresses.append(self._addresses.pop(0))
            raise
        return answer[0].decode(), int(answer[1])

    def close(self) -> None:
        """Drop the connection; the next question opens one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _dial(
    place: dict[str, Any], where: str | Sequence[Any], greeting: Sequence[Sequence[str]]
) -> _Connection:
    """Return a connection that is logged in, to a path or to a host and port."""
    connection = _Connection(_open_socket(place, where) if isinstance(where, str) else _open(place, *where))
    try:
        for command in greeting:
            connection.ask(command)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_socket(place: dict[str, Any], path: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(place["timeout"])
        link.connect(path)
    except BaseException:
        link.close()
        raise
    return link


def _open(place: dict[str, Any], host: str, port: int) -> socket.socket:
    link = socket.create_connection((host, port), place["timeout"])
    if place.get("tls") is None:
        return link
    try:
        return _wrap(link, host, place["tls"])
    except BaseException:
        link.close()
        raise


class _Connection:
    """Asks over a socket, one command at a time."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._rest = b""
        seconds = link.gettimeout()
        if seconds is not None and type(link) is socket.socket:
            # The kernel's own limit: with Python's, each call is two.
            limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            link.settimeout(None)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def ask(self, command: Sequence[Any] | bytes) -> Any:
        try:
            self._link.sendall(command if isinstance(command, bytes) else written(command))
            return self._read()
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def close(self) -> None:
        self._link.close()

    def _read(self) -> Any:
        line = self._read_line()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise Refused(rest.decode(errors="replace"))
        if kind in b"$*" and rest == b"-1":
            return None
        if kind == b"$":
            return self._read_bytes(int(rest))
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def _read_line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            self._read_more()
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def _read_bytes(self, size: int) -> bytes:
        while len(self._rest) < size + 2:
            self._read_more()
        found, self._rest = self._rest[:size], self._rest[size + 2 :]
        return found

    def _read_more(self) -> None:
        data = self._link.recv(64 * 1024)
        if not data:
            raise ConnectionError("the connection was closed")
        self._rest += data


class _Reporter:
    """Reports a trouble once, and each success; a parent that does not read is not waited for."""

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self._last = ""

    def report(self, text: str) -> None:
        if text != self._last or not text:
            self._last = text
            self.write(text)

    def write(self, text: str) -> None:
        try:
            os.write(self._reports, " ".join(text.split())[:1000].encode(errors="replace") + b"\n")
        except OSError:  # the orders end with the parent too
            return


def _wrap(link: socket.socket, host: str, options: dict[str, Any]) -> socket.socket:
    import ssl  # half as much again as the rest of this process: only where TLS is used

    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options["ssl_check_hostname"]
    context.verify_mode = ssl.VerifyMode[f"CERT_{options['ssl_cert_reqs'].upper()}"]
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context.wrap_socket(link, server_hostname=host)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    serve(sys.stdin.fileno(), sys.stdout.fileno(), int(sys.argv[1]))
    os._exit(0)  # nothing to tidy up
