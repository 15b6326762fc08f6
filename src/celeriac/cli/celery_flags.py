"""Celery's flags that this command line does not have, with the words to use in their place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import click

WORKER_FLAGS: Mapping[str, str] = {
    "-B": "periodic tasks are not part of the worker",
    "--beat": "periodic tasks are not part of the worker",
    "--autoscale": "coroutines need no scaling: give the most that may run at once with -c",
    "-D": "leave the process to systemd, a container or `&`",
    "--detach": "leave the process to systemd, a container or `&`",
    "--pidfile": "leave the process to systemd or a container",
    "--uid": "leave the process to systemd or a container",
    "--gid": "leave the process to systemd or a container",
    "--umask": "leave the process to systemd or a container",
    "--workdir": "change the directory before the start",
    "-I": "import those modules in the module of the app",
    "--include": "import those modules in the module of the app",
    "-X": "name the queues to take from with -Q",
    "--exclude-queues": "name the queues to take from with -Q",
    "--time-limit": "give it to the task, @app.task(timeout=...), or the app, time_limit=...",
    "--soft-time-limit": "give it to the task, @app.task(soft_timeout=...), or the app, soft_time_limit=...",
    "--purge": "empty the queue first: celeriac queues purge QUEUE",
    "--discard": "empty the queue first: celeriac queues purge QUEUE",
}

HARMLESS = "celeriac.harmless_flags"
"""Where a command's context keeps what is to be said of the flags without effect that were given."""

HARMLESS_FLAGS: Mapping[tuple[str, ...], str] = {
    ("--without-gossip",): "there is no gossip",
    ("--without-mingle",): "there is no mingling",
    ("--pool-restarts",): "workers take no orders yet",
}
"""Flags of Celery's worker that ask for nothing which is missed."""

HARMLESS_OPTIONS: Mapping[tuple[str, ...], str] = {
    (
        "-O",
        "--optimization",
    ): "a worker holds what it starts within 20 ms; with prefetch=0 in the app, nothing",
    ("--prefetch-multiplier",): "the app's setting prefetch says what a worker may hold",
    ("--heartbeat-interval",): "a heartbeat goes out every 2 s",
    ("-s", "--schedule-filename", "--schedule"): "periodic tasks are not part of the worker",
    ("--scheduler",): "periodic tasks are not part of the worker",
    ("-S", "--statedb"): "what is revoked is kept with the broker",
}
"""The same, of those that take a value."""

COMMANDS: Mapping[str, str] = {
    "purge": "use celeriac queues purge QUEUE",
    "report": "use celeriac doctor",
    "multi": "use celeriac worker --processes N, under systemd or in containers",
    "list": "use celeriac queues",
    "shell": "use python, importing your module",
    "amqp": "use celeriac queues",
    "beat": "celery beat can send to celeriac workers",
    "flower": "run Flower itself beside the workers: celery -b URL flower",
}

POOLS: Mapping[str, str] = {
    "prefork": "processes",
    "gevent": "threads, or write the tasks as coroutines (async def)",
    "eventlet": "threads, or write the tasks as coroutines (async def)",
}


class WorkerCommand(click.Command):
    """A command that knows what Celery's flags of that name are called here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            instead = WORKER_FLAGS.get(error.option_name)
            if instead is None:
                raise
            raise click.UsageError(f"celeriac has no {error.option_name}: {instead}", ctx) from error


def takes_harmless_flags(function: Any) -> Any:
    """Accept the flags of Celery's worker that do no harm; the context's ``meta[HARMLESS]`` tells which were given."""
    for flags, takes_value in ((HARMLESS_FLAGS, False), (HARMLESS_OPTIONS, True)):
        for names, why in flags.items():
            function = click.option(
                *names,
                f"no_effect_{names[-1].strip('-').replace('-', '_')}",
                is_flag=not takes_value,
                hidden=True,
                expose_value=False,
                callback=partial(_note, why),
            )(function)
    return function


def _note(why: str, context: click.Context, option: click.Parameter, value: str | bool | None) -> None:
    if value:
        given = f"{option.opts[-1]} {value}" if isinstance(value, str) else option.opts[-1]
        context.meta.setdefault(HARMLESS, []).append(f"{given} has no effect: {why}")


class PoolName(click.Choice[str]):
    """The name of a pool, ours."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in POOLS:
            self.fail(f"there is no pool {value} here: use -P {POOLS[value]}", param, ctx)
        return super().convert(value, param, ctx)
