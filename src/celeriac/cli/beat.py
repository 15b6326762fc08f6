"""``celeriac beat``: ticks the periodic tasks of an app, and runs none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import click

from celeriac.beat.schedules import Schedules
from celeriac.beat.source import SourceTaken
from celeriac.cli.celery_flags import HARMLESS, SCHEDULER, CelerysCommand, LogLevel, takes_beats_flags
from celeriac.cli.console import say, styled
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.loading import load
from celeriac.cli.loops import LOOPS, loop_factory
from celeriac.cli.observation import Observation
from celeriac.cli.pidfile import pidfile
from celeriac.cli.places import backend_place, broker_place
from celeriac.cli.shown import split_shown, takes_shown
from celeriac.cli.source import Source, takes_source
from celeriac.cli.worker_log import LogFormat, LogStyle, set_up_logging
from celeriac.client.app import App
from celeriac.worker.signals import Signals

logger = logging.getLogger("celeriac.beat")

LEVELS = ("debug", "info", "warning", "error", "critical")

DOUBLES = "periodic tasks are ticked here: a celery beat that runs as well would send each of them again; stop it first"
"""What is said of an app whose periodic tasks another program may tick too."""


@click.command("beat", cls=CelerysCommand, short_help="Send periodic tasks when they are due.")
@takes_source
@click.option(
    "-l", "--loglevel", type=LogLevel(LEVELS, case_sensitive=False), default="info", show_default=True
)
@click.option(
    "--lease",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Another leads within this time. [default: 5]",
)
@click.option("-f", "--logfile", metavar="FILE", help="Write the log there in place of stderr.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="One JSON object a line, or text.")
@click.option("--pidfile", "pid_file", metavar="FILE", help="Write the id of the process there.")
@click.option(
    "--loop", type=click.Choice(LOOPS), default="auto", help="auto takes uvloop where it is installed."
)
@takes_shown
@takes_beats_flags
@click.pass_context
def beat(
    context: click.Context,
    /,
    source: Source,
    loglevel: str,
    lease: float | None,
    logfile: str | None,
    log_format: LogFormat | None,
    pid_file: str | None,
    loop: str,
    **options: Any,
) -> int:
    """Send periodic tasks when they are due, until SIGTERM or Ctrl-C; run none.

    Any number of these may run, beside workers that tick as well: each slot gets one message.
    """
    with Observation(split_shown(options)) as observation:
        _beat(
            context,
            source,
            observation,
            LogStyle(level=loglevel, form=log_format, file=logfile),
            lease,
            pid_file,
            loop,
        )
    return Exit.OK


def _beat(
    context: click.Context,
    source: Source,
    observation: Observation,
    style: LogStyle,
    lease: float | None,
    pid_file: str | None,
    loop: str,
) -> None:
    app = load(source)
    app.connect_to(lease=lease)
    heed_scheduler(context, app)
    schedules = schedules_of(app)
    set_up_logging(style, "beat")
    for text in context.meta.get(HARMLESS, ()):
        logger.warning("%s", text)
    if not schedules.by_default:
        logger.warning("%s", DOUBLES)
    if style.form != "json":
        _show_banner(app, schedules)
    with (
        pidfile(pid_file, "beat@localhost"),
        asyncio.Runner(loop_factory=loop_factory(loop)) as runner,
    ):
        runner.run(_serve(app, schedules, observation))


def schedules_of(app: App) -> Schedules:
    """Return the periodic tasks of an app. Raises ``CommandFailed`` where it can have none."""
    schedules = getattr(app, "schedules", None)
    if not isinstance(schedules, Schedules):
        raise CommandFailed(f"{app!r} has no periodic tasks that celeriac can tick", Exit.USAGE)
    return schedules


def heed_scheduler(context: click.Context, app: App) -> None:
    """Let an app of Celery's go by the scheduler that the command line names; of another app say it has no effect."""
    name = context.meta.get(SCHEDULER)
    if name is None:
        return
    use: Callable[[str], None] | None = getattr(app, "use_scheduler", None)
    if use is not None:
        use(name)
    else:
        text = f"--scheduler {name} has no effect: periodic tasks are kept with the broker"
        context.meta.setdefault(HARMLESS, []).append(text)


def _show_banner(app: App, schedules: Schedules) -> None:
    say(styled(f"celeriac {version('celeriac')}  beat of {app.name}", bold=True))
    rows = {
        "broker": broker_place(app),
        "backend": backend_place(app),
        "entries": ", ".join(schedules.declared) or "none in code: those that were added at run time",
    }
    for label, text in rows.items():
        say("  ", styled(f"{label:<8}", dim=True), f" {text}")


async def _serve(app: App, schedules: Schedules, observation: Observation) -> None:
    async with Signals() as signals, app, observation.beside(app):
        ticker, health = schedules.ticker(), observation.health
        running = asyncio.create_task(ticker.run(), name="celeriac-beat")
        health.is_dead, health.is_dead_text = running.done, "no periodic tasks are ticked any more"
        health.not_yet = "the periodic tasks are not read yet"
        stopping = asyncio.create_task(signals.first.wait())
        ready = asyncio.create_task(ticker.ready.wait())
        ready.add_done_callback(lambda done: None if done.cancelled() else health.note_ready())
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        ready.cancel()
        health.note_stopping()
        logger.info("stopping")
        ticker.stop()
        try:
            await running
        except SourceTaken as error:
            raise CommandFailed(str(error)) from error
