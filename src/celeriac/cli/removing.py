"""``celeriac queues remove``: single tasks leave a queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import click

from celeriac.cli.completing import complete_queues
from celeriac.cli.confirming import confirm, require_queues
from celeriac.cli.console import say
from celeriac.cli.loading import load_existing
from celeriac.cli.messages import SHORTEST
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.client.app import App
from celeriac.client.removing import Waiting, remove_waiting
from celeriac.wire.preview import counted


@click.command("remove", short_help="Delete some of the tasks that wait in a queue.")
@click.argument("queue", shell_complete=complete_queues)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--task", "pattern", metavar="PATTERN", help="Those of these tasks, such as 'shop.*'.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@takes_source
def remove(source: Source, queue: str, ids: Sequence[str], pattern: str | None, yes: bool) -> None:
    """Delete the tasks with these ids, or of these names, that wait in QUEUE. Those that run are kept.

    ID is a task's, or the beginning of it. Who waits for a deleted task is told that it was revoked. Of a queue on
    RabbitMQ the first 1000 messages are looked at.
    """
    if bool(ids) == bool(pattern):
        raise click.UsageError("which ones? Give ids, or --task PATTERN", click.get_current_context())
    app = load_existing(source)
    run_with(app, require_queues(app, [queue]))
    if not yes:
        named = f"tasks like {pattern}" if pattern else f"{counted(len(ids), 'task')} ({', '.join(ids)})"
        confirm(f"Delete {named} from queue {queue}?")
    removed = run_with(app, _remove(app, queue, _choice(ids, pattern)))
    say(f"{counted(removed, 'task')} deleted")


def _choice(ids: Sequence[str], pattern: str | None) -> Callable[[Waiting], bool]:
    if pattern:
        return lambda one: one.task == pattern or fnmatchcase(one.task, pattern)
    long = tuple(id for id in ids if len(id) >= SHORTEST)
    return lambda one: one.key in ids or (bool(long) and one.id.startswith(long))


async def _remove(app: App, queue: str, chosen: Callable[[Waiting], bool]) -> int:
    return sum([len(step.removed) async for step in remove_waiting(app, queue, chosen)])
