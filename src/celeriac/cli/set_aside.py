"""Messages that were set aside, as commands list, show and choose them: dead letters, and those of failed tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Protocol

import click
import msgspec

from celeriac.cli.console import say, say_lines, styled
from celeriac.cli.exits import CommandFailed
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load_existing
from celeriac.cli.messages import SHORTEST, Summary, summary_of, too_short
from celeriac.cli.running import run_with
from celeriac.cli.source import Source
from celeriac.cli.tables import show_table
from celeriac.client.app import App
from celeriac.contracts.set_aside import DeadLetter
from celeriac.monitor.again import Arguments
from celeriac.wire.envelope import Envelope
from celeriac.wire.task import TaskMessage, decode

PAGE = 500
TOLD = 20
"""How many of the messages that are about to go are shown."""


class Listed(Protocol):
    """A list of messages that were set aside."""

    async def list(self, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        """Return up to ``limit`` entries."""
        ...

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete these; return how many were."""
        ...


class Kind(msgspec.Struct, frozen=True):
    """A kind of such messages.

    :param name: of one.
    :param names: of several.
    :param command: what lists them.
    :param of: returns the list of an app's broker.
    """

    name: str
    names: str
    command: str
    of: Callable[[App], Listed]


class Letter(msgspec.Struct, frozen=True):
    """A message that was set aside, and what it says."""

    dead: DeadLetter
    summary: Summary

    def is_called(self, id: str) -> bool:
        """Whether this is its id, or its task's."""
        return id in (self.dead.id, self.summary.id)

    def arguments(self, app: App) -> Arguments:
        """Return the arguments in the message. Raises ``CommandFailed`` where it cannot be read."""
        envelope = self.dead.envelope
        message = decode(envelope, app.codecs) if isinstance(envelope, Envelope) else None
        if not isinstance(message, TaskMessage):
            raise CommandFailed(
                f"the message of {self.dead.id} cannot be read here: {self.summary.arguments}"
            )
        return Arguments(list(message.args), message.kwargs)

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


def show_letter(kind: Kind, source: Source, id: str) -> None:
    """Show everything that is known of one message."""
    app = load_existing(source)
    for letter in run_with(app, find(kind, app, Choice(ids=[id]))):
        for label, text in _facts(letter).items():
            say(styled(f"{label:<12}", dim=True), f" {text}")


def choice_of(ids: Sequence[str], task: str | None, error: str | None, *, every: bool) -> Choice:
    """Return the choice that the options of a command say. Raises ``click.UsageError`` where they say none."""
    if not (ids or task or error or every):
        raise click.UsageError(
            "which ones? Give ids, --task PATTERN, --error TEXT or --all", click.get_current_context()
        )
    return Choice(ids=ids, task=task, error=error)


def tell_of(letters: Sequence[Letter]) -> None:
    """Show what is about to be deleted or run again, on stderr."""
    if letters:
        _show_table(letters[:TOLD], err=True)
    if len(letters) > TOLD:
        say(f"and {len(letters) - TOLD} more", err=True)


def list_letters(kind: Kind, source: Source, choice: Choice, limit: int, *, as_objects: bool) -> None:
    """List the messages of a choice."""
    app = load_existing(source)
    letters = run_with(app, find(kind, app, choice))
    shown = letters[:limit]
    if as_objects:
        say_lines(as_json([{"id": letter.dead.id, **_facts(letter)} for letter in shown]))
        return
    if not letters:
        say(f"no {kind.names}")
        return
    _show_table(shown)
    if len(letters) > limit:
        say(f"and {len(letters) - limit} more: list -n {len(letters)}", err=True)


def _show_table(letters: Sequence[Letter], *, err: bool = False) -> None:
    headings = ["id", "died at", "queue", "task", "task id", "reason"]
    rows = [_row(letter) for letter in letters]
    if all(letter.dead.id == letter.summary.id for letter in letters):
        # Twice the same would leave no room for it on a terminal of 80 columns, where it is to be copied from.
        shown = [number for number, heading in enumerate(headings) if heading != "task id"]
        headings, rows = _only(headings, shown), [_only(row, shown) for row in rows]
    show_table(headings, rows, err=err)


def _only(cells: Sequence[str], shown: Sequence[int]) -> list[str]:
    return [cells[number] for number in shown]


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


async def find(kind: Kind, app: App, choice: Choice) -> list[Letter]:
    """Return the letters of a choice. Raises ``CommandFailed`` for an id that is none, or not one's alone."""
    found = [letter async for letter in _letters(kind, app, choice.takes)]
    if not choice.ids:
        return found
    return [letter for id in choice.ids for letter in _named(kind, id, found)]


def _named(kind: Kind, id: str, letters: Sequence[Letter]) -> list[Letter]:
    same = [letter for letter in letters if letter.is_called(id)]
    alike = same or [letter for letter in letters if letter.begins(id)]
    if not alike:
        raise CommandFailed(f"there is no {kind.name} {id}; {kind.command} lists them{too_short(id)}")
    if len(alike) > 1 and not same:
        raise CommandFailed(f"{len(alike)} {kind.names} begin with {id}: give more of the id")
    return alike


async def _letters(kind: Kind, app: App, takes: Callable[[Letter], bool]) -> AsyncIterator[Letter]:
    letters, offset = kind.of(app), 0
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
