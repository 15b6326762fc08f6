"""``celeriac worker``: runs the tasks of an app."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Literal

import click
import msgspec

from celeriac.beat.lifespan import with_ticking
from celeriac.celeriac import Celeriac
from celeriac.cli.again import StartAgain, show_stacks_on_signal
from celeriac.cli.beat import DOUBLES, heed_scheduler, schedules_of
from celeriac.cli.celery_flags import (
    HARMLESS,
    SCHEDULER,
    VALUES,
    CelerysCommand,
    LogLevel,
    PoolName,
    StartMethod,
    takes_harmless_flags,
)
from celeriac.cli.celery_options import CeleryOptions, split_celery, takes_celery_options
from celeriac.cli.celery_said import said
from celeriac.cli.completing import complete_queues
from celeriac.cli.console import say, styled
from celeriac.cli.exits import Exit
from celeriac.cli.loading import load
from celeriac.cli.loops import LOOPS, loop_factory
from celeriac.cli.neighbours import neighbours
from celeriac.cli.observation import FamilyObservation, Observation
from celeriac.cli.pidfile import pidfile
from celeriac.cli.places import backend_place, broker_place
from celeriac.cli.queues import purge
from celeriac.cli.running import run_with
from celeriac.cli.shown import split_shown, takes_shown
from celeriac.cli.source import Source, takes_source
from celeriac.cli.target import load_app
from celeriac.cli.worker_log import LogFormat, LogStyle, handle_lines, set_up_logging
from celeriac.client.app import App
from celeriac.wire.preview import counted
from celeriac.worker.attachments import Attachments
from celeriac.worker.pools.choice import POOLS, START_METHODS
from celeriac.worker.signals import HANGUP, Stop
from celeriac.worker.supervisor import Child, Supervisor
from celeriac.worker.worker import Worker

logger = logging.getLogger("celeriac.worker")

LAST_CANCEL = 1.0
"""Seconds that what is left in the event loop has to end, once the worker has stopped."""

SUPERVISED_BROKER, SUPERVISED_BACKEND = "CELERIAC_SUPERVISED_BROKER", "CELERIAC_SUPERVISED_BACKEND"
"""Variables in which a supervisor gives its children the URLs of its command line."""

LEVELS = ("debug", "info", "warning", "error", "critical")


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a worker on the command line."""

    queues: str | None
    concurrency: int | None
    pool: Literal["threads", "processes", "solo"] | None
    name: str | None
    grace: float | None
    lease: float | None
    max_tasks_per_child: int | None
    max_memory_per_child: int | None
    start_method: Literal["forkserver", "spawn"] | None
    loglevel: str
    logfile: str | None
    log_format: LogFormat | None
    loop: str
    send_events: bool
    without_heartbeat: bool
    beat: bool | None


@click.command("worker", cls=CelerysCommand)
@takes_source
@click.option(
    "-Q",
    "--queues",
    metavar="A,B",
    shell_complete=complete_queues,
    help="Take from these queues. [default: the app's]",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tasks at once. [default: 100; with processes one for each core]",
)
@click.option(
    "-P",
    "--pool",
    type=PoolName(POOLS),
    help="Where plain functions run. [default: threads; for a Celery app as it says, else processes]",
)
@click.option("-n", "--hostname", "name", metavar="NAME", help="Node name; %h, %n, %d as in Celery.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Worker processes that share nothing.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long running tasks may take to end after SIGTERM or Ctrl-C. [default: 30]",
)
@click.option(
    "--lease",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long after its death a worker's tasks run elsewhere. [default: the app's setting, 30]",
)
@click.option(
    "-l", "--loglevel", type=LogLevel(LEVELS, case_sensitive=False), default="info", show_default=True
)
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(min=1),
    metavar="N",
    help="With -P processes: replace a child after so many tasks.",
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(min=1),
    metavar="KIB",
    help="With -P processes: replace a child whose memory passed this.",
)
@click.option(
    "--start-method",
    "--pool-start-method",
    "start_method",
    type=StartMethod(START_METHODS),
    help="With -P processes: fork children from a process that imported the app, or start each anew.",
)
@click.option("-f", "--logfile", metavar="FILE", help="Write the log there in place of stderr.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="One JSON object a line, or text.")
@click.option(
    "--loop", type=click.Choice(LOOPS), default="auto", help="auto takes uvloop where it is installed."
)
@click.option(
    "-E", "--task-events", "--events", "send_events", is_flag=True, help="Tell monitors of every task."
)
@click.option(
    "-B",
    "--beat/--no-beat",
    "beat",
    default=None,
    help="Tick periodic tasks too. [default: if the app's code declares any; for a Celery app not]",
)
@click.option("--without-heartbeat", is_flag=True, help="Do not tell monitors that the worker lives.")
@takes_celery_options
@takes_shown
@click.option("--supervised", is_flag=True, hidden=True)
@takes_harmless_flags
@click.pass_context
def worker(
    context: click.Context, /, source: Source, processes: int, supervised: bool, **options: object
) -> int:
    """Run the tasks of an app until SIGTERM or Ctrl-C.

    The first signal stops gracefully, a second gives running tasks back to the queue at once.
    """
    if source.target is None:
        raise click.UsageError("name the app whose tasks to run: celeriac worker -A module")
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    show_stacks_on_signal()
    shown, celerys = split_shown(options), split_celery(options)
    chosen = msgspec.convert(options, WorkerOptions)
    if processes > 1:
        with FamilyObservation(shown, processes) as family:
            app, made = _load(context, source, chosen, celerys, partial(_attached, chosen.beat), processes)
            scheduler = context.meta.get(SCHEDULER)
            children = _children(source, chosen, celerys, family.options, scheduler)
            supervisor = Supervisor(children, hopeless=[Exit.USAGE, Exit.UNREACHABLE])
            with pidfile(celerys.pidfile, made.name):
                code = asyncio.run(family.around(app, supervisor.run()))
        _start_again_after(supervisor.stopped_by, at_terminal)
        return code or _code_after(app, supervisor.stopped_by)
    with Observation(shown) as observation:
        if supervised:
            source = _handed_down(source)
        app, made = _load(
            context,
            source,
            chosen,
            celerys,
            lambda app: observation.attachments(app, _attached(chosen.beat, app)),
            1,
            supervised,
        )
        observation.follow(made)
        if supervised:
            _end_with_standard_input()
        with pidfile(None if supervised else celerys.pidfile, made.name):
            _serve(app, made, chosen, supervised=supervised)
    _start_again_after(made.stopped_by, at_terminal)
    return Exit.OK if supervised else _code_after(app, made.stopped_by)


def _code_after(app: App, stop: Stop | None) -> int:
    """Return the exit code of a worker that ended in order."""
    return app.code_after_interrupt if stop is not None and stop.number == signal.SIGINT else Exit.OK


def _start_again_after(stop: Stop | None, at_terminal: bool) -> None:
    """Have the command run again where SIGHUP asked for it, as Celery's worker does: not when its terminal has gone."""
    if stop is not None and stop.number == HANGUP and not at_terminal:
        logger.info("starting again, after SIGHUP")
        raise StartAgain


def _load(
    context: click.Context,
    source: Source,
    chosen: WorkerOptions,
    celerys: CeleryOptions,
    attachments: Callable[[App], Attachments | None],
    processes: int,
    supervised: bool = False,
) -> tuple[App, Worker]:
    """Import the app, set up logging, show the banner; return the app and its worker."""
    assert source.target is not None
    app = load(source, celerys.include)
    app.require_runnable()
    app.connect_to(lease=chosen.lease)
    heed_scheduler(context, app)
    others = {"--scheduler": context.meta.get(SCHEDULER), **context.meta.get(VALUES, {})}
    app.note_options(said(msgspec.structs.asdict(chosen), celerys, others))
    if changes := celerys.settings():
        app.adjust(**changes)
    style = LogStyle(
        level=chosen.loglevel, form=chosen.log_format, file=chosen.logfile, one_of_many=supervised
    )
    begin_child = partial(_begin_child, source.target, celerys.include, style)
    made = _make(app, chosen, celerys, attachments(app), begin_child)
    _log(app, style, made.name)
    for text in (*context.meta.get(HARMLESS, ()), *app.remarks):
        logger.warning("%s", text)
    if not supervised and _ticks(chosen.beat, app) and not schedules_of(app).by_default:
        logger.warning("%s", DOUBLES)
    if not supervised and chosen.log_format != "json":
        show_banner(app, made, processes)
    if celerys.purge and not supervised:
        deleted = run_with(app, purge(app, made.queues))
        logger.warning("--purge: %s deleted from %s", counted(deleted, "task"), ", ".join(made.queues))
    return app, made


def _attached(beat: bool | None, app: App) -> Attachments | None:
    """Return the listeners and lifespans of a worker, with the ticker of periodic tasks if it is to tick."""
    attachments: Attachments | None = getattr(app, "attachments", None)
    if not _ticks(beat, app):
        return attachments
    return with_ticking(attachments or Attachments(), schedules_of(app))


def _ticks(beat: bool | None, app: App) -> bool:
    return bool(isinstance(app, Celeriac) and app.schedules.declared) if beat is None else beat


def show_banner(app: App, made: Worker, processes: int) -> None:
    """Print the worker's name, its servers, and its tasks."""
    workers = f" in each of {processes} processes" if processes > 1 else ""
    where = POOL_TEXTS.get(made.pool, made.pool)
    rows = {
        "broker": broker_place(app),
        "backend": backend_place(app),
        "queues": ", ".join(made.queues),
        "at once": f"{counted(made.concurrency, 'task')}{workers}, plain functions in {where}",
        "tasks": ", ".join(sorted(app.tasks)) or "none: does the app's module import them?",
    }
    title = f"celeriac {version('celeriac')}  {made.name}"
    say(styled(title, bold=True))
    for label, text in rows.items():
        _say_row(label, text)


def _say_row(label: str, text: str) -> None:
    say("  ", styled(f"{label:<8}", dim=True), f" {text}")


POOL_TEXTS = {"threads": "threads", "processes": "child processes", "solo": "the event loop, one at a time"}


def _make(
    app: App,
    chosen: WorkerOptions,
    celerys: CeleryOptions,
    attachments: Attachments | None,
    begin_child: Callable[[str], None],
) -> Worker:
    given = {
        "concurrency": celerys.autoscale[0] if celerys.autoscale else chosen.concurrency,
        "pool": chosen.pool,
        "grace": chosen.grace,
        "max_tasks_per_child": chosen.max_tasks_per_child,
        "max_memory_per_child": chosen.max_memory_per_child,
        "start_method": chosen.start_method,
    }
    options = {**app.worker_options, **{name: value for name, value in given.items() if value is not None}}
    return Worker(
        app,
        autoscale=celerys.autoscale[1] if celerys.autoscale else None,
        queues=celerys.queues(chosen.queues, app.queues),
        name=chosen.name,
        send_events=chosen.send_events or None,
        heartbeats=not chosen.without_heartbeat,
        attachments=attachments,
        child_log=begin_child,
        **options,
    )


def _log(app: App, style: LogStyle, node: str) -> None:
    """Log as the app wants it, or as the command line says."""
    if style.form == "json" or not app.set_up_logging(style.level, style.file, node):
        set_up_logging(style, node)


def _begin_child(target: str, include: Sequence[str], style: LogStyle, node: str) -> None:
    """Let a process of the pool import what its worker did, and log as it does, whatever that module did to logging."""
    app = load_app(target, include)
    if style.form == "json" or not app.set_up_logging(style.level, style.file, node):
        handle_lines(style, node)


def _serve(app: App, made: Worker, chosen: WorkerOptions, *, supervised: bool) -> None:
    asking: set[asyncio.Task[None]] = set()

    def say_ready() -> None:
        if chosen.log_format == "json":
            logger.info("%s ready", made.name)
        else:
            say(styled(f"{made.name} ready", fg="green"))
        if not supervised:
            asking.add(
                asyncio.create_task(_say_neighbours(app, made.name, chosen), name="celeriac-neighbours")
            )

    async def serve_and_end() -> None:
        gc.collect()
        gc.freeze()  # what was loaded until now stays
        await made.serve(say_ready)
        await _end_the_rest(Exit.OK if supervised else _code_after(app, made.stopped_by))

    with asyncio.Runner(loop_factory=loop_factory(chosen.loop)) as runner:
        runner.run(serve_and_end())


async def _say_neighbours(app: App, own: str, chosen: WorkerOptions) -> None:
    found = await neighbours(app, own)
    if found.names and chosen.log_format == "json":
        logger.info("beside it on this broker: %s", found)
    elif found.names:
        _say_row("beside", str(found))
    if found.doubled:
        logger.warning(
            "another worker of this broker is named %s too: give each a name of its own, with -n", own
        )


async def _end_the_rest(code: int) -> None:
    """Cancel the asyncio tasks that are left; if one of them ignores that, end the process at once, with this code."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest and (await asyncio.wait(rest, timeout=LAST_CANCEL))[1]:
        logging.shutdown()
        os._exit(code)


def _children(
    source: Source,
    chosen: WorkerOptions,
    celerys: CeleryOptions,
    observing: Sequence[Sequence[str]],
    scheduler: str | None,
) -> list[Child]:
    """Return the processes to run, one for each of the lists of options by which they are observed."""
    stem, at, host = (chosen.name or "celeriac").partition("@")
    names = [f"{stem}-{number}{at}{host}" for number in range(1, len(observing) + 1)]
    given = {
        "-A": source.target,
        "-Q": chosen.queues,
        "-c": chosen.concurrency,
        "-P": chosen.pool,
        "--grace": chosen.grace,
        "--lease": chosen.lease,
        "--max-tasks-per-child": chosen.max_tasks_per_child,
        "--max-memory-per-child": chosen.max_memory_per_child,
        "--start-method": chosen.start_method,
        "-l": chosen.loglevel,
        "-f": chosen.logfile,
        "--log-format": chosen.log_format,
        "--loop": chosen.loop,
        "--scheduler": scheduler,
    }
    flags = {"-E": chosen.send_events, "--without-heartbeat": chosen.without_heartbeat}
    if chosen.beat is not None:
        flags["--beat" if chosen.beat else "--no-beat"] = True
    given |= celerys.handed_down()
    options = [str(part) for pair in given.items() if pair[1] is not None for part in pair]
    options += [flag for flag, is_given in flags.items() if is_given]
    command = [sys.executable, "-m", "celeriac", "worker", "--supervised", *options]
    # Arguments are shown to every user of the machine, the environment to this one alone.
    urls = {SUPERVISED_BROKER: source.broker, SUPERVISED_BACKEND: source.backend}
    given_urls = {variable: url for variable, url in urls.items() if url is not None}
    return [
        Child(name, [*command, "-n", name, *its_own], given_urls)
        for name, its_own in zip(names, observing, strict=True)
    ]


def _handed_down(source: Source) -> Source:
    """Return the source with the URLs that the supervisor was given; they are not left for the tasks to see."""
    return source.over(
        Source(None, os.environ.pop(SUPERVISED_BROKER, None), os.environ.pop(SUPERVISED_BACKEND, None))
    )


def _end_with_standard_input() -> None:
    """Stop as if by SIGTERM when the supervisor is gone, however it went."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="celeriac-supervised", daemon=True).start()
