"""Celery's flags that this command line does not have, with the words to use in their place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click

PROCESS_FLAGS: Mapping[str, str] = {
    "-D": "leave the process to systemd, a container or `&`",
    "--detach": "leave the process to systemd, a container or `&`",
    "--executable": "leave the process to systemd, a container or `&`",
    "--uid": "start it as that user: leave that to systemd or a container",
    "--gid": "start it as that group: leave that to systemd or a container",
    "--umask": "set it in the shell that starts it, or leave that to systemd",
}

HARMLESS = "celeriac.harmless_flags"
"""Where a command's context keeps what is to be said of the flags without effect that were given."""

VALUES = "celeriac.harmless_values"
"""Where it keeps their values, by their last names."""

HARMLESS_FLAGS: Mapping[tuple[str, ...], str] = {
    ("--without-gossip",): "there is no gossip",
    ("--without-mingle",): "there is no mingling",
    ("--pool-restarts",): "workers take no orders yet",
}
"""Flags of Celery's worker that ask for nothing which is missed."""

HARMLESS_OPTIONS: Mapping[tuple[str, ...], str] = {
    ("--heartbeat-interval",): "a heartbeat goes out every 2 s",
    ("-s", "--schedule-filename", "--schedule"): "what was ticked is kept with the broker",
    ("-S", "--statedb"): "what is revoked is kept with the broker",
}
"""The same, of those that take a value."""

BEATS_OPTIONS: Mapping[tuple[str, ...], str] = {
    ("-s", "--schedule"): "what was ticked is kept with the broker",
    ("--max-interval",): "it sleeps until the next slot, or until an entry changes",
}
"""Options of ``celery beat`` that ask for nothing which is missed."""

SCHEDULER = "celeriac.scheduler"
"""Where a command's context keeps the scheduler that was named: an app of Celery's goes by it."""

COMMANDS: Mapping[str, str] = {
    "purge": "use celeriac queues purge QUEUE",
    "report": "use celeriac doctor",
    "multi": "use celeriac worker --processes N, under systemd or in containers",
    "list": "use celeriac queues",
    "shell": "use python, importing your module",
    "amqp": "use celeriac queues",
    "flower": "run Flower itself beside the workers: celery -b URL flower",
}

POOLS: Mapping[str, str] = {
    "custom": "threads, processes or solo",
    "gevent": "threads, or write the tasks as coroutines (async def)",
    "eventlet": "threads, or write the tasks as coroutines (async def)",
}


class CelerysCommand(click.Command):
    """A command of a process that knows what Celery's flags of that name are called here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            instead = PROCESS_FLAGS.get(error.option_name)
            if instead is None:
                raise
            raise click.UsageError(f"celeriac has no {error.option_name}: {instead}", ctx) from error


def takes_harmless_flags(function: Any) -> Any:
    """Accept the flags of Celery's worker that do no harm; the context's ``meta[HARMLESS]`` tells which were given."""
    for flags, takes_value in ((HARMLESS_FLAGS, False), (HARMLESS_OPTIONS, True)):
        for names, why in flags.items():
            function = _harmless(names, why, takes_value=takes_value)(function)
    return _takes_scheduler("--scheduler")(function)


def takes_beats_flags(function: Any) -> Any:
    """Do the same for the flags of ``celery beat``."""
    for names, why in BEATS_OPTIONS.items():
        function = _harmless(names, why, takes_value=True)(function)
    return _takes_scheduler("-S", "--scheduler")(function)


def _takes_scheduler(*names: str) -> Callable[[Any], Any]:
    return click.option(*names, "names_scheduler", hidden=True, expose_value=False, callback=_note_scheduler)


def _note_scheduler(context: click.Context, _: click.Parameter, name: str | None) -> None:
    if name:
        context.meta[SCHEDULER] = name


def _harmless(names: tuple[str, ...], why: str, *, takes_value: bool) -> Callable[[Any], Any]:
    return click.option(
        *names,
        f"no_effect_{names[-1].strip('-').replace('-', '_')}",
        is_flag=not takes_value,
        hidden=True,
        expose_value=False,
        callback=partial(_note, why),
    )


ENVIRONMENT: Mapping[tuple[str, ...], tuple[str, str | None]] = {
    ("--config",): ("CELERY_CONFIG_MODULE", None),
    ("--loader",): ("CELERY_LOADER", None),
    ("--skip-checks",): ("CELERY_SKIP_CHECKS", "true"),
    ("-C", "--no-color"): ("NO_COLOR", "1"),
    ("-q", "--quiet"): ("CELERY_QUIET", "1"),
}
"""Celery's options before the command, with the variable that each of them sets, and its value if it takes none."""


def takes_environment_flags(function: Any) -> Any:
    """Accept Celery's options that stand before the command, for apps that go by them."""
    for names, (variable, fixed) in ENVIRONMENT.items():
        function = click.option(
            *names,
            f"sets_{variable.lower()}",
            is_flag=fixed is not None,
            hidden=True,
            expose_value=False,
            is_eager=True,
            callback=partial(_set_variable, variable, fixed),
        )(function)
    return function


def _set_variable(
    variable: str, fixed: str | None, _: click.Context, __: click.Parameter, value: str | bool | None
) -> None:
    if value:
        os.environ[variable] = fixed or str(value)


def _note(why: str, context: click.Context, option: click.Parameter, value: str | bool | None) -> None:
    if value:
        context.meta.setdefault(VALUES, {})[option.opts[-1]] = value
        given = f"{option.opts[-1]} {value}" if isinstance(value, str) else option.opts[-1]
        context.meta.setdefault(HARMLESS, []).append(f"{given} has no effect: {why}")


class LogLevel(click.Choice[str]):
    """A level of logging, ours; ``fatal`` is Celery's word for critical."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert("critical" if str(value).lower() == "fatal" else value, param, ctx)


class StartMethod(click.Choice[str]):
    """How child processes start; Celery's ``fork`` is forkserver, which loads the app once as well."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert("forkserver" if value == "fork" else value, param, ctx)


class PoolName(click.Choice[str]):
    """The name of a pool, ours."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        value = "processes" if value == "prefork" else value
        if value in POOLS:
            self.fail(f"there is no pool {value} here: use -P {POOLS[value]}", param, ctx)
        return super().convert(value, param, ctx)
