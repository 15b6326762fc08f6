"""The options that say what a worker shows of itself: probes and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from celeriac.probes.health import LIVE_AFTER
from celeriac.probes.pages import Address

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

    :param one_of_many: whether the process is a child of a supervisor, which asks for its numbers.
    """

    probe_port: Address | None
    probe_socket: str | None
    live_after: float
    heartbeat_file: str | None
    metrics_port: Address | None
    metrics_prefix: str
    metrics_hostname: str | None
    one_of_many: bool

    @property
    def anything(self) -> bool:
        """Whether anything is to be shown."""
        return self.wants_metrics or self.probe_socket is not None or self.heartbeat_file is not None

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
    click.option("--one-of-many", is_flag=True, hidden=True),
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
        one_of_many=False,
        **options,
    )


def split_shown(options: dict[str, Any]) -> Shown:
    """Take what a worker shows out of the options of its command."""
    return Shown(**{name: options.pop(name) for name in Shown.__struct_fields__})
