"""What a worker shows of itself: probes, and the options of them.

Rules: it begins before the app is imported, so that a probe is answered while the import takes its time, and ends after
the worker.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import click
import msgspec

from celeriac.client.app import App
from celeriac.probes.family import Family
from celeriac.probes.health import LIVE_AFTER, Health, HealthListener, Pulse
from celeriac.probes.heartbeat import HeartbeatFile, HeartbeatThread
from celeriac.probes.pages import Address, Pages, PageServer
from celeriac.worker.attachments import Attachments
from celeriac.worker.worker import Worker

T = TypeVar("T")


class AddressType(click.ParamType[Address]):
    """A port, with or without the address to listen on: ``8080``, ``127.0.0.1:8080``, ``[::1]:8080``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r}: give a port, such as 8080, or 127.0.0.1:8080", param, ctx)
        return Address(int(port), host.strip("[]"))


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What the options ask a worker to show."""

    probe_port: Address | None
    probe_socket: str | None
    live_after: float
    heartbeat_file: str | None

    @property
    def wants_pages(self) -> bool:
        """Whether any page is to be served."""
        return self.probe_port is not None or self.probe_socket is not None


OPTIONS = (
    click.option(
        "--probe-port",
        type=AddressType(),
        metavar="[HOST:]PORT",
        help="Answer /livez, /readyz and /startupz there.",
    ),
    click.option("--probe-socket", metavar="PATH", help="Answer them on this Unix socket."),
    click.option(
        "--live-after",
        type=click.FloatRange(min=0, min_open=True),
        default=LIVE_AFTER,
        show_default=True,
        metavar="SECONDS",
        help="How long the event loop may be stuck until /livez says so.",
    ),
    click.option("--heartbeat-file", metavar="PATH", help="Touch this file each second while it lives."),
)


def takes_shown(function: Callable[..., T]) -> Callable[..., T]:
    """Add the options of what a worker shows to a command; ``split_shown`` takes them apart."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def split_shown(options: dict[str, Any]) -> Shown:
    """Take what a worker shows out of the options of its command."""
    return Shown(**{name: options.pop(name) for name in Shown.__struct_fields__})


class Observation:
    """What one worker process shows while the block lasts. Raises ``ConfigError`` for an address that is taken."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._until_the_end = ExitStack()
        self._file = HeartbeatFile(shown.heartbeat_file) if shown.heartbeat_file else None
        self._is_on = shown.wants_pages or self._file is not None
        self._health = Health(Pulse(self._file.beat if self._file else None), shown.live_after)

    def __enter__(self) -> Self:
        if self._file is not None:
            self._until_the_end.callback(self._file.remove)
        _serve(self._shown, self._health.pages(), self._until_the_end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_the_end.close()

    def attachments(self, app: App, own: Attachments | None) -> Attachments | None:
        """Return what the worker of an app is to have: what the app attaches, and what notes the worker's health."""
        if not self._is_on:
            return own
        joined = Attachments()
        joined.listen(HealthListener(self._health))

        async def health() -> AsyncIterator[None]:
            async for _ in self._health.lifespan(lambda: app.connections().broker):
                yield

        joined.live(health)
        if own is not None:
            joined.listeners += own.listeners
            joined.lifespans += own.lifespans
            joined.child_lifespans += own.child_lifespans
        return joined

    def follow(self, worker: Worker) -> None:
        """Look at this worker's queues, and whether it takes from them."""
        self._health.queues = lambda: worker.queues
        self._health.is_dead = lambda: worker.has_ended


class FamilyObservation:
    """What the supervisor of several worker processes shows while the block lasts.

    :param number: of the processes.
    """

    def __init__(self, shown: Shown, number: int) -> None:
        self._shown = shown
        self._number = number
        self._until_the_end = ExitStack()
        self._file = HeartbeatFile(shown.heartbeat_file) if shown.heartbeat_file else None

    def __enter__(self) -> Sequence[Sequence[str]]:
        """Begin; return the options that each process needs."""
        if not self._shown.wants_pages and self._file is None:
            return [()] * self._number
        directory = self._until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-"))
        sockets = [str(Path(directory, f"{number}")) for number in range(1, self._number + 1)]
        family = Family(sockets)
        _serve(self._shown, family.pages(), self._until_the_end)
        if self._file is not None:
            thread = HeartbeatThread(self._file, lambda: family.live().good)
            thread.start()
            self._until_the_end.callback(self._file.remove)
            self._until_the_end.callback(thread.close)
        live_after = f"{self._shown.live_after:g}"
        return [("--probe-socket", path, "--live-after", live_after) for path in sockets]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_the_end.close()


def _serve(shown: Shown, pages: Pages, until_the_end: ExitStack) -> None:
    addresses = [shown.probe_port] if shown.probe_port is not None else []
    if shown.probe_socket is not None:
        addresses.append(Address(path=shown.probe_socket))
    for address in addresses:
        server = PageServer(address.listen(), pages)
        server.start()
        until_the_end.callback(server.close)
