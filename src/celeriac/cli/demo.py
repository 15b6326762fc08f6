"""``celeriac demo``: a worker, some hundred tasks of every kind, and what became of them.

Rules: the worker is ``celeriac worker`` in a process of its own; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from celeriac.celeriac import Celeriac
from celeriac.cli import demo_tasks
from celeriac.cli.demo_screen import Burst, DemoScreen, Kind, screen_for
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.places import backend_place, broker_place
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.cli.watching import progress_of
from celeriac.client.app import App
from celeriac.client.outbox import Call
from celeriac.client.result import Result, as_completed

COUNTDOWN = 2.0
BURST = 2_000
START_TIMEOUT = 20.0
PATIENCE = 60.0
"""Seconds after which the demo gives up: a machine on which it takes longer has other troubles."""


@click.command("demo", short_help="See it work; needs nothing.")
@takes_source
def demo(source: Source) -> int:
    """Start a worker, send it tasks of every kind, show what happens.

    Needs nothing: without --broker it runs on a temporary SQLite file.
    """
    if source.target is not None:
        raise click.UsageError("the demo brings tasks of its own: leave -A out")
    with TemporaryDirectory(prefix="celeriac-demo-") as folder:
        broker = source.broker or f"sqlite:///{Path(folder, 'demo.db')}"
        app = demo_tasks.app
        app.connect_to(broker, source.backend or broker)
        run_with(app, _show(app))
    return Exit.OK


async def _show(app: Celeriac) -> None:
    broker, backend = broker_place(app), backend_place(app)
    screen = screen_for(f"on {broker}" + (f", results on {backend}" if backend != broker else ""))
    await app.connections().broker.ping()
    await app.connections().backend.ping()
    try:
        async with asyncio.timeout(PATIENCE), _worker(app) as process:
            screen.started(process.pid)
            kinds = _kinds()
            await _run(app, kinds, screen)
            screen.show_table(kinds)
            screen.show_burst(await _burst(app))
    except TimeoutError as error:
        raise CommandFailed(f"the demo was not done within {PATIENCE:.0f} s", Exit.TIMEOUT) from error
    screen.show_next_steps()


def _kinds() -> list[Kind]:
    tasks = demo_tasks
    return [
        Kind("async", "async def add", [tasks.add.call(n, n) for n in range(300)]),
        Kind(
            "async, waiting", "async def download, 50 ms each", [tasks.download.call(n) for n in range(100)]
        ),
        Kind(
            "plain function",
            "def checksum, in threads",
            [tasks.checksum.call(f"text {n}") for n in range(60)],
        ),
        Kind("CPU-bound", "def count_primes", [tasks.count_primes.call(2000 + n) for n in range(30)]),
        Kind("fails, retried", "ConnectionError twice", [tasks.fetch.call(f"shop {n}") for n in range(10)]),
        Kind("fails for good", "divide(1, 0)", [tasks.divide.call(1, 0)]),
        Kind(
            "later",
            f"countdown={COUNTDOWN:g}",
            [tasks.remind.using(countdown=COUNTDOWN).call() for _ in range(10)],
        ),
        Kind("reports progress", "async def export", [tasks.export.call(1000)]),
    ]


async def _run(app: App, kinds: Sequence[Kind], screen: DemoScreen) -> None:
    calls: list[Call[Any]] = [call for kind in kinds for call in kind.calls]
    owners = [(kind, call) for kind in kinds for call in kind.calls]
    results = await app.send_many(calls)
    by_id = {result.id: owner for result, owner in zip(results, owners, strict=True)}
    screen.sent(len(results))
    with screen.following(len(results)):
        watching = asyncio.create_task(_watch(results[-1], screen))
        async for result in as_completed(results):
            kind, call = by_id[result.id]
            kind.count(call, await result.info())
            screen.advance()
        await watching
    await app.connections().backend.forget(list(by_id))


async def _watch(result: Result[Any], screen: DemoScreen) -> None:
    async for record in result.watch():
        done, total, text = progress_of(record)
        if done is not None and total is not None and not record.ready:
            screen.progress(done, total, text)


async def _burst(app: App) -> Burst:
    calls: list[Call[Any]] = [demo_tasks.add.call(n, 1) for n in range(BURST)]
    begun = time.perf_counter()
    results = await app.send_many(calls)
    sent = time.perf_counter()
    async for _ in as_completed(results):
        pass
    done = time.perf_counter()
    await app.connections().backend.forget([result.id for result in results])
    return Burst(BURST, sent - begun, done - begun)


@asynccontextmanager
async def _worker(app: App) -> AsyncIterator[Process]:
    command = [
        sys.executable,
        "-m",
        "celeriac",
        "worker",
        "-A",
        demo_tasks.__name__,
        "-l",
        "critical",
        "--supervised",
    ]
    # By the environment: a command line, with the password in a URL, is for all to see.
    environment: Mapping[str, str] = {
        **os.environ,
        "CELERIAC_BROKER": app.broker_url,
        "CELERIAC_BACKEND": app.backend_url,
    }
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True
    )
    try:
        await _ready(process)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def _ready(process: Process) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_TIMEOUT):
            line = await process.stdout.readline()
            while line and not line.endswith(b" ready\n"):
                line = await process.stdout.readline()
            if line:
                return
            said = (await process.stderr.read()).decode(errors="replace").strip().removeprefix("error: ")
            raise CommandFailed(
                f"the demo's worker did not start: {said.splitlines()[-1] if said else 'no word'}"
            )
    except TimeoutError as error:
        raise CommandFailed(
            f"the demo's worker did not get its queue within {START_TIMEOUT:.0f} s; look with celeriac doctor",
            Exit.UNREACHABLE,
        ) from error
