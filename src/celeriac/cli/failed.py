"""``celeriac failed``: tasks that failed for good, whose messages are kept, and what to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from celeriac.cli.console import say
from celeriac.cli.exits import CommandFailed
from celeriac.cli.loading import load_existing
from celeriac.cli.running import run_with
from celeriac.cli.set_aside import Kind, Letter, choice_of, find, tell_of
from celeriac.cli.set_aside_commands import Helps, add_commands, chooses_several, list_if_alone
from celeriac.cli.source import Source, takes_source
from celeriac.client.app import App
from celeriac.errors import CeleriacError
from celeriac.monitor.again import Arguments, send_again, send_all_again
from celeriac.wire.preview import counted

FAILED = Kind("failed task", "failed tasks", "celeriac failed", lambda app: app.connections().broker.failed)


@click.group(
    "failed", short_help="List, run again or delete tasks that failed for good.", invoke_without_command=True
)
@takes_source
@click.pass_context
def failed(context: click.Context, source: Source) -> None:
    """List tasks that failed for good, look at one, run them again, delete their messages.

    Workers of celeriac keep the message of such a task whole, as many as the setting keep_failed says.
    """
    list_if_alone(context, FAILED, source)


@failed.command("retry")
@chooses_several
@click.option("--args", metavar="JSON", help="Of one task: a list of other arguments.")
@click.option("--kwargs", metavar="JSON", help="Of one task: an object of other keyword arguments.")
@takes_source
def retry_command(
    source: Source,
    ids: Sequence[str],
    task: str | None,
    error: str | None,
    every: bool,
    args: str | None,
    kwargs: str | None,
) -> None:
    """Run tasks again, each under a new id, on the queues that they came from."""
    app = load_existing(source)
    choice = choice_of(ids, task, error, every=every)

    async def retry() -> Sequence[tuple[str, str | CeleriacError]]:
        letters = await find(FAILED, app, choice)
        tell_of(letters)
        changed = _arguments(app, letters, args, kwargs)
        if changed is not None:
            return [(letter.dead.id, await send_again(app, letter.dead, changed)) for letter in letters]
        return await send_all_again(app, [letter.dead for letter in letters])

    answers = run_with(app, retry())
    for id, answer in answers:
        if isinstance(answer, CeleriacError):
            say(f"{id} not sent: {answer}", err=True)
        else:
            say(f"{id} again as {answer}")
    sent = sum(isinstance(answer, str) for _, answer in answers)
    say(f"{counted(sent, 'task')} sent again", err=True)
    if sent < len(answers):
        raise CommandFailed(f"{counted(len(answers) - sent, 'task')} not sent")


add_commands(
    failed,
    FAILED,
    Helps(
        list="List tasks that failed for good, the oldest first.",
        show="Show everything that is known of the task ID, its arguments unmasked.",
        delete="Delete the messages of failed tasks for good.",
    ),
)


def _arguments(app: App, letters: Sequence[Letter], args: str | None, kwargs: str | None) -> Arguments | None:
    """Return the arguments that were given in place of the task's own. Raises ``click.UsageError``."""
    if args is None and kwargs is None:
        return None
    if len(letters) != 1:
        raise click.UsageError(f"--args and --kwargs are for one task, and these are {len(letters)}")
    own = letters[0].arguments(app)
    return Arguments(
        own.args if args is None else _read("--args", args, list),
        own.kwargs if kwargs is None else _read("--kwargs", kwargs, dict),
    )


def _read(option: str, text: str, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise click.UsageError(f"{option} {text!r:.100}: {error}") from error
