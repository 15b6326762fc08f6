"""``celeriac control``: tells workers what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from uuid import uuid4

import click

from celeriac.broker import Binding, Exchange
from celeriac.cli.answers import in_order, show_answers
from celeriac.cli.asking import Meant, ask, check_answered, takes_meant, takes_method
from celeriac.cli.console import say_lines
from celeriac.cli.loading import load_existing, run_with
from celeriac.cli.methods import CONTROL, arguments_of, method_of
from celeriac.cli.outcome import as_json
from celeriac.cli.source import Source, takes_source
from celeriac.client.app import App
from celeriac.client.control import Answer, Asked
from celeriac.errors import WireError
from celeriac.wire.envelope import Envelope, Unreadable

GONE = {"ok": "gone"}
"""What is told of a worker that ends without an answer, as one of Celery's does."""

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
    work = _shutdown(app, meant) if method == "shutdown" else ask(app, meant, method, arguments)
    answers = in_order(run_with(app, work))
    if as_objects:
        say_lines(as_json([{answer.node: answer.value} for answer in answers]))
    else:
        show_answers(answers, bodies=True)


async def _shutdown(app: App, meant: Meant) -> Asked:
    """End workers; return when each has answered, or has told that it ends."""
    there = await ask(app, meant, "ping", {})
    left, told = set(there.by_node), list[Answer]()
    over = asyncio.Event()

    def tell(answer: Answer) -> None:
        if answer.node in left:
            left.discard(answer.node)
            told.append(answer)
        if not left:
            over.set()

    async with _endings(app) as endings:
        hearing = asyncio.create_task(_hear(app, endings, tell))
        asking = asyncio.create_task(
            meant._replace(destination=sorted(left), pattern=None).ask(app, "shutdown", hear=tell)
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(meant.timeout):
                await over.wait()
        for task in (hearing, asking):
            task.cancel()
        await asyncio.wait([hearing, asking])
    asked = Asked(tuple(told), there.listeners, complete=not left)
    await check_answered(app, meant._replace(destination=sorted(there.by_node), pattern=None), asked)
    return asked


def _endings(app: App) -> AbstractAsyncContextManager[AsyncIterator[Envelope | Unreadable]]:
    fanout = app.connections().broker.fanout
    assert fanout is not None
    exchange = Exchange("celeryev", by_key=True)
    return fanout.listen([Binding(exchange=exchange, key=ENDINGS, queue=f"celeryev.{uuid4()}")])


async def _hear(
    app: App, endings: AsyncIterator[Envelope | Unreadable], tell: Callable[[Answer], None]
) -> None:
    async for message in endings:
        if isinstance(message, Envelope):
            with suppress(WireError):
                content = app.codecs.decode(message.body, message.content_type, message.content_encoding)
                for event in content if isinstance(content, list) else [content]:
                    if isinstance(event, dict) and isinstance(event.get("hostname"), str):
                        tell(Answer(event["hostname"], GONE))
