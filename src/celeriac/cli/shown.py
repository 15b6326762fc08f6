"""The options that say what a worker shows of itself: probes and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from celeriac.probes.address import Address
from celeriac.probes.health import LIVE_AFTER

T = TypeVar("T")


class AddressType(click.ParamType[Address]):
    """A port, with or without the address to listen on: ``8080``, ``127.0.0.1:8080``, ``[::1]:8080``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
            self.fail(f"{value!r}: give a port, such as 8080, or 127.0.0.1:8080", param, ctx)
        return Address(int(port), host.strip("[]"))


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What the options ask a worker to show.

    :param facts_file: where a supervisor reads the health of this process.
    :param snapshot_socket: the Unix socket on which a supervisor asks for the numbers of this process.
    """

    probe_port: Address | None
    probe_socket: str | None
    live_after: float
    heartbeat_file: str | None
    metrics_port: Address | None
    metrics_prefix: str
    metrics_hostname: str | None
    facts_file: str | None
    snapshot_socket: str | None

    @property
    def anything(self) -> bool:
        """Whether anything is to be shown."""
        others = (self.probe_socket, self.heartbeat_file, self.facts_file, self.snapshot_socket)
        return self.wants_metrics or any(other is not None for other in others)

    @property
    def wants_metrics(self) -> bool:
        """Whether metrics are to be shown, on a port of their own or beside probes."""
        return self.metrics_port is not None or self.probe_port is not None


PROBES = (
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
    click.option("--facts-file", hidden=True),
    click.option("--snapshot-socket", hidden=True),
)

METRICS = (
    click.option(
        "--metrics-port",
        type=AddressType(),
        metavar="[HOST:]PORT",
        help="Serve /metrics for Prometheus there. [default: the probe port]",
    ),
    click.option("--metrics-prefix", default="", metavar="TEXT", help="Put this before every metric's name."),
    click.option("--metrics-hostname", metavar="NAME", help="The label hostname. [default: this machine's]"),
)


def takes_shown(function: Callable[..., T]) -> Callable[..., T]:
    """Add the options of what a worker shows to a command; ``split_shown`` takes them apart."""
    for option in reversed((*PROBES, *METRICS)):
        function = option(function)
    return function


def takes_metrics(function: Callable[..., T]) -> Callable[..., T]:
    """Add the options of metrics alone to a command; ``split_metrics`` takes them apart."""
    for option in reversed(METRICS):
        function = option(function)
    return function


def split_metrics(options: dict[str, Any]) -> Shown:
    """Take what metrics a command shows out of its options."""
    return Shown(
        probe_port=None,
        probe_socket=None,
        live_after=LIVE_AFTER,
        heartbeat_file=None,
        facts_file=None,
        snapshot_socket=None,
        **options,
    )


def split_shown(options: dict[str, Any]) -> Shown:
    """Take what a worker shows out of the options of its command."""
    return Shown(**{name: options.pop(name) for name in Shown.__struct_fields__})
