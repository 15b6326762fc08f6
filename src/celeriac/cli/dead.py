"""``celeriac dead``: messages that were set aside, and what to do with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import click
import msgspec

from celeriac.broker import DeadLetter
from celeriac.cli.console import say, say_lines, styled
from celeriac.cli.exits import CommandFailed
from celeriac.cli.loading import load_existing, run_with
from celeriac.cli.messages import SHORTEST, Summary, summary_of, too_short
from celeriac.cli.outcome import as_json
from celeriac.cli.queues import confirm
from celeriac.cli.source import Source, takes_source
from celeriac.cli.tables import show_table
from celeriac.client.app import App
from celeriac.wire.envelope import Envelope
from celeriac.wire.preview import counted

PAGE = 500
TOLD = 20
"""How many of the messages that are about to go are shown."""


class Letter(msgspec.Struct, frozen=True):
    """A message that was set aside, and what it says."""

    dead: DeadLetter
    summary: Summary

    def is_called(self, id: str) -> bool:
        """Whether this is its id, or its task's."""
        return id in (self.dead.id, self.summary.id)

    def begins(self, id: str) -> bool:
        """Whether one of these ids begins so. Where letters are numbered a number is never the beginning of an id."""
        if len(id) < SHORTEST or (id.isdecimal() and self.dead.id.isdecimal()):
            return False
        return self.dead.id.startswith(id) or self.summary.id.startswith(id)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters: those that fit all that is given.

    :param ids: ids of letters or of their tasks, or beginnings of these with at least ``SHORTEST`` characters.
    :param task: pattern of task names.
    :param error: text within the reason, in any case.
    """

    ids: Sequence[str] = ()
    task: str | None = None
    error: str | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether the letter is among them."""
        return (
            (not self.ids or any(letter.is_called(id) or letter.begins(id) for id in self.ids))
            and (self.task is None or fnmatchcase(letter.summary.task, self.task))
            and (self.error is None or self.error.lower() in letter.dead.reason.lower())
        )


def chooses(function: Any) -> Any:
    """Add the options that say which letters are meant."""
    function = click.option("--error", metavar="TEXT", help="Those with this text in their reason.")(function)
    return click.option("--task", metavar="PATTERN", help="Those of these tasks, such as 'shop.*'.")(function)


@click.group(
    "dead", short_help="List, run again or delete messages that were set aside.", invoke_without_command=True
)
@takes_source
@click.pass_context
def dead(context: click.Context, source: Source) -> None:
    """List messages that were set aside, look at one, run them again, delete them.

    Set aside is what no worker can run: an unknown task, a message that cannot be read, one that was delivered too
    often, one that its task rejected.
    """
    if context.invoked_subcommand is None:
        _list(source, Choice(), 100, as_objects=False)


@dead.command("list")
@chooses
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
@takes_source
def list_command(source: Source, task: str | None, error: str | None, limit: int, as_objects: bool) -> None:
    """List messages that were set aside, the oldest first."""
    _list(source, Choice(task=task, error=error), limit, as_objects=as_objects)


@dead.command("show")
@click.argument("id")
@takes_source
def show_command(source: Source, id: str) -> None:
    """Show everything that is known of the message ID, which may be its task's id."""
    app = load_existing(source)
    for letter in run_with(app, _find(app, Choice(ids=[id]))):
        for label, text in _facts(letter).items():
            say(styled(f"{label:<12}", dim=True), f" {text}")


@dead.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@chooses
@click.option("--all", "every", is_flag=True, help="All there are.")
@takes_source
def retry_command(
    source: Source, ids: Sequence[str], task: str | None, error: str | None, every: bool
) -> None:
    """Put messages back on the queues that they came from."""
    app = load_existing(source)
    choice = _choice(ids, task, error, every=every)

    async def retry() -> int:
        letters = await _find(app, choice)
        _tell_of(letters)
        return await app.connections().broker.dead.retry([letter.dead.id for letter in letters])

    count = run_with(app, retry())
    say(f"{counted(count, 'message')} back on {'its queue' if count == 1 else 'their queues'}")


@dead.command("delete")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@chooses
@click.option("--all", "every", is_flag=True, help="All there are.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@takes_source
def delete_command(
    source: Source, ids: Sequence[str], task: str | None, error: str | None, every: bool, yes: bool
) -> None:
    """Delete messages for good."""
    app = load_existing(source)
    letters = run_with(app, _find(app, _choice(ids, task, error, every=every)))
    _tell_of(letters)
    if letters and not yes:
        confirm(f"Delete {counted(len(letters), 'message')} for good?")

    async def delete() -> int:
        return await app.connections().broker.dead.delete([letter.dead.id for letter in letters])

    say(f"{counted(run_with(app, delete()), 'message')} deleted")


def _choice(ids: Sequence[str], task: str | None, error: str | None, *, every: bool) -> Choice:
    if not (ids or task or error or every):
        raise click.UsageError(
            "which ones? Give ids, --task PATTERN, --error TEXT or --all", click.get_current_context()
        )
    return Choice(ids=ids, task=task, error=error)


def _tell_of(letters: Sequence[Letter]) -> None:
    """Show what is about to be deleted or run again, on stderr."""
    if letters:
        _show_table(letters[:TOLD], err=True)
    if len(letters) > TOLD:
        say(f"and {len(letters) - TOLD} more", err=True)


def _list(source: Source, choice: Choice, limit: int, *, as_objects: bool) -> None:
    app = load_existing(source)
    letters = run_with(app, _find(app, choice))
    shown = letters[:limit]
    if as_objects:
        say_lines(as_json([{"id": letter.dead.id, **_facts(letter)} for letter in shown]))
        return
    if not letters:
        say("no dead letters")
        return
    _show_table(shown)
    if len(letters) > limit:
        say(f"and {len(letters) - limit} more: -n {len(letters)}", err=True)


def _show_table(letters: Sequence[Letter], *, err: bool = False) -> None:
    show_table(
        ["id", "died at", "queue", "task", "task id", "reason"],
        [_row(letter) for letter in letters],
        err=err,
    )


def _row(letter: Letter) -> list[str]:
    dead = letter.dead
    return [
        dead.id,
        _time(dead.died_at),
        dead.queue,
        letter.summary.task or "?",
        letter.summary.id or "?",
        dead.reason,
    ]


def _facts(letter: Letter) -> dict[str, Any]:
    dead, summary, content = letter.dead, letter.summary, letter.dead.envelope
    facts: dict[str, Any] = {
        "id": dead.id,
        "reason": dead.reason,
        "died at": _time(dead.died_at),
        "queue": dead.queue,
        "task": summary.task,
        "task id": summary.id,
        "arguments": summary.arguments,
        "retries": summary.retries or "",
        "eta": summary.eta,
    }
    if isinstance(content, Envelope):
        facts |= {
            "content": " ".join(filter(None, (content.content_type, content.content_encoding))),
            "headers": as_json(content.headers, lines=False) if content.headers else "",
            "body": content.body.decode(errors="backslashreplace"),
        }
    else:
        facts["raw"] = content.raw.decode(errors="backslashreplace")
    return {label: value for label, value in facts.items() if value != ""}


async def _find(app: App, choice: Choice) -> list[Letter]:
    """Return the letters of a choice. Raises ``CommandFailed`` for an id that is none, or not one's alone."""
    found = [letter async for letter in _letters(app, choice.takes)]
    if not choice.ids:
        return found
    return [letter for id in choice.ids for letter in _named(id, found)]


def _named(id: str, letters: Sequence[Letter]) -> list[Letter]:
    same = [letter for letter in letters if letter.is_called(id)]
    alike = same or [letter for letter in letters if letter.begins(id)]
    if not alike:
        raise CommandFailed(f"there is no dead letter {id}; celeriac dead lists them{too_short(id)}")
    if len(alike) > 1 and not same:
        raise CommandFailed(f"{len(alike)} dead letters begin with {id}: give more of the id")
    return alike


async def _letters(app: App, takes: Callable[[Letter], bool]) -> AsyncIterator[Letter]:
    letters, offset = app.connections().broker.dead, 0
    while page := await letters.list(PAGE, offset):
        offset += len(page)
        for dead in page:
            letter = Letter(dead, summary_of(dead.envelope, app))
            if takes(letter):
                yield letter


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # another program may have written the entry
        return "?"
