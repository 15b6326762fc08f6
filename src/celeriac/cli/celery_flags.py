"""What Celery's command line has and this one has not, with what to use in its place."""

from __future__ import annotations

from collections.abc import Mapping
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
    "-f": "logs go to stderr: redirect it",
    "--logfile": "logs go to stderr: redirect it",
    "-I": "import those modules in the module of the app",
    "--include": "import those modules in the module of the app",
    "-X": "name the queues to take from with -Q",
    "--exclude-queues": "name the queues to take from with -Q",
    "-O": "a worker takes only what it can start now; there is nothing to choose",
    "--prefetch-multiplier": "a worker takes only what it can start now",
    "--time-limit": "give it to the task, @app.task(timeout=...), or the app, time_limit=...",
    "--soft-time-limit": "give it to the task, @app.task(soft_timeout=...), or the app, soft_time_limit=...",
    "--without-gossip": "there is no gossip: leave it out",
    "--without-mingle": "there is no mingling: leave it out",
    "--without-heartbeat": "there is no heartbeat to switch off: leave it out",
    "--heartbeat-interval": "leave it out",
    "--purge": "empty the queue first: celeriac queues purge QUEUE",
    "--discard": "empty the queue first: celeriac queues purge QUEUE",
    "-E": "events are not sent yet: leave it out",
    "--task-events": "events are not sent yet: leave it out",
    "-S": "no state is kept on disk: leave it out",
    "--statedb": "no state is kept on disk: leave it out",
    "-s": "periodic tasks are not part of the worker",
    "--schedule": "periodic tasks are not part of the worker",
    "--scheduler": "periodic tasks are not part of the worker",
    "--pool-restarts": "leave it out",
}

COMMANDS: Mapping[str, str] = {
    "purge": "use celeriac queues purge QUEUE",
    "report": "use celeriac doctor",
    "status": "use celeriac doctor",
    "multi": "use celeriac worker --processes N, under systemd or in containers",
    "list": "use celeriac queues",
    "shell": "use python, importing your module",
    "amqp": "use celeriac queues",
    "beat": "celery beat can send to celeriac workers",
    "inspect": "workers cannot be asked yet; see celeriac queues and celeriac result",
    "control": "workers take no orders yet; celeriac revoke takes tasks back",
    "events": "workers send no events yet; see their logs",
    "flower": "workers send no events yet; see celeriac queues and celeriac result",
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


class PoolName(click.Choice[str]):
    """The name of a pool, ours."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in POOLS:
            self.fail(f"there is no pool {value} here: use -P {POOLS[value]}", param, ctx)
        return super().convert(value, param, ctx)
