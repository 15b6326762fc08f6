"""``celeriac control``: tells workers what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import click

from celeriac.cli.answers import in_order, show_answers
from celeriac.cli.asking import Meant, ask, check_answered, takes_meant, takes_method
from celeriac.cli.console import say_lines
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load_existing
from celeriac.cli.methods import CONTROL, arguments_of, method_of
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.client.app import App
from celeriac.client.control import Answer, Asked
from celeriac.client.event_reader import EventStream
from celeriac.errors import BrokerError, BrokerUnavailable

ENDS = {"ok": "shutting down"}
"""What celeriac's workers answer. It is also printed for a worker of Celery, which sends an event and no answer."""

ENDINGS = "worker.offline"
"""The routing key of the event that a worker sends when it ends."""


@click.command("control", short_help="Tell workers what to do.")
@takes_method(CONTROL)
@takes_meant
@takes_source
def control(source: Source, meant: Meant, method: str, words: Sequence[str], as_objects: bool) -> None:
    """Tell workers METHOD, such as add_consumer, pool_grow, shutdown, and print what each answers.

    All of Celery's methods work, with their arguments in the same order; --list shows them. What they change lasts
    until the worker ends; what is revoked is kept with the broker by celeriac's workers.
    """
    arguments = arguments_of(method, method_of(method, CONTROL), words)
    app = load_existing(source)
    work = _shutdown(app, meant) if method == "shutdown" else ask(app.control, meant, method, arguments)
    answers = in_order(run_with(app, work))
    if as_objects:
        say_lines(as_json([{answer.node: answer.value} for answer in answers]))
    else:
        show_answers(answers, bodies=True)


async def _shutdown(app: App, meant: Meant) -> Asked:
    """End workers; return when each has answered, or has told that it ends."""
    there = await ask(app.control, meant, "ping", {})
    left, told = set(there.by_node), list[Answer]()
    over = asyncio.Event()

    def tell(answer: Answer) -> None:
        if answer.node in left:
            left.discard(answer.node)
            told.append(answer)
        if not left:
            over.set()

    async with AsyncExitStack() as stack:
        endings = await _endings(app, stack)
        hearing = asyncio.create_task(_hear(endings, tell))
        meant = meant._replace(destination=sorted(left), pattern=None)
        asking = asyncio.create_task(meant.ask(app.control, "shutdown", hear=tell))
        ending = asyncio.create_task(over.wait())
        await asyncio.wait([ending, asking], timeout=meant.timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in (hearing, asking, ending):
            task.cancel()
        await asyncio.wait([hearing, asking, ending])
        if not asking.cancelled():
            await asking  # if the broker went away, this raises its error
    asked = Asked(tuple(told), there.listeners, complete=not left)
    await check_answered(app.control, meant, asked)
    return asked


async def _endings(app: App, stack: AsyncExitStack) -> EventStream | None:
    """Return the events of workers that end, ``None`` where this user may not hear events: the answers are left."""
    try:
        return await stack.enter_async_context(app.events.listen(ENDINGS))
    except BrokerUnavailable:
        raise
    except BrokerError:
        return None


async def _hear(endings: EventStream | None, tell: Callable[[Answer], None]) -> None:
    if endings is not None:
        async for event in endings:
            tell(Answer(event.node, ENDS))
