"""``celeriac exporter``: the metrics of a whole fleet, celeriac's and Celery's, for Prometheus."""

from __future__ import annotations

import asyncio

import click

from celeriac.cli.console import say
from celeriac.cli.loading import load
from celeriac.cli.shown import AddressType
from celeriac.cli.source import Source, takes_source
from celeriac.client.app import App
from celeriac.metrics.exporter import Exporter
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.page import MetricsPage
from celeriac.metrics.queues import QueueReader
from celeriac.probes.address import Address
from celeriac.probes.pages import PageServer
from celeriac.worker.signals import Signals


@click.command("exporter", short_help="Serve the metrics of a fleet for Prometheus.")
@click.option(
    "--metrics-port",
    type=AddressType(),
    default="9808",
    show_default=True,
    metavar="[HOST:]PORT",
    help="Serve /metrics there.",
)
@click.option("--metrics-prefix", default="", metavar="TEXT", help="Put this before every metric's name.")
@click.option(
    "--sender-hostname", metavar="NAME", help="The label hostname of what is sent, such as generic."
)
@click.option("--no-enable", is_flag=True, help="Do not ask the workers for events of tasks.")
@takes_source
def exporter(
    source: Source, metrics_port: Address, metrics_prefix: str, sender_hostname: str | None, no_enable: bool
) -> None:
    """Count what the workers of a broker tell in their events, celeriac's and Celery's, until SIGTERM or Ctrl-C.

    No app is needed: -b URL is enough. Workers are asked to send events of tasks, as if they had -E.
    """
    exposition = Exposition(metrics_prefix)
    app = load(source)
    asyncio.run(_serve(app, metrics_port, exposition, sender_hostname, enable=not no_enable))


async def _serve(app: App, at: Address, exposition: Exposition, sender: str | None, *, enable: bool) -> None:
    exporter = Exporter(app, enable=enable, sender=sender)
    page = MetricsPage(
        lambda numbers: exposition.fleet_text(exporter.snapshots(), numbers, exporter.broker_up)
    )
    page.loop = asyncio.get_running_loop()
    page.reader = QueueReader(lambda: app.connections().broker, always=True)
    server = PageServer(at.listen(), {"/metrics": page.page})
    server.start()
    try:
        async with app, Signals() as signals, exporter.running():
            say(f"metrics on port {server.port}, path /metrics")
            await signals.first.wait()
    finally:
        server.close()
