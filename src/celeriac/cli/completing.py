"""Completes words in the shell: methods, and the nodes and queues that the broker of the line knows.

Rules: nothing is printed, and no error is shown, whatever is wrong: the person is still typing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from celeriac.cli.running import run_with
from celeriac.cli.source import Source

if TYPE_CHECKING:
    from celeriac.client.app import App

DEADLINE = 0.5
"""Seconds that the shell waits for the broker."""


def complete_nodes(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Return the names of workers that answer; what stands before the last comma is kept."""
    before, comma, last = typed.rpartition(",")
    return [f"{before}{comma}{node}" for node in _seen(context, _nodes) if node.startswith(last)]


def complete_queues(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Return the queues of the broker; what stands before the last comma is kept."""
    before, comma, last = typed.rpartition(",")
    return [f"{before}{comma}{queue}" for queue in _seen(context, _queues) if queue.startswith(last)]


def _seen(context: click.Context, look: Callable[[App], Awaitable[Sequence[str]]]) -> Sequence[str]:
    async def in_time(app: App) -> Sequence[str]:
        async with asyncio.timeout(2 * DEADLINE):
            return await look(app)

    from celeriac.cli.loading import (
        existing,  # every command imports this module, and few lines are completed
    )

    try:
        app = existing(_source_of(context))
        return run_with(app, in_time(app))
    except Exception:  # noqa: BLE001 - see the rules
        return ()


def _source_of(context: click.Context | None) -> Source:
    """Return what the options before and after the command say so far."""
    found = Source()
    while context is not None:
        given = {name: context.params.get(name) for name in Source._fields}
        found, context = found.over(Source(**given)), context.parent
    return found


async def _nodes(app: App) -> Sequence[str]:
    return sorted((await app.control.ask("ping", timeout=DEADLINE)).by_node)


async def _queues(app: App) -> Sequence[str]:
    return await app.connections().broker.queues()
