"""Shows the answers of workers as Celery's command line does, or as JSON alone."""

from __future__ import annotations

import json
from pprint import pformat
from typing import Any

from celeriac.cli.console import say, say_lines, styled
from celeriac.client.control import Answer, Asked

INDENT = "    "


def in_order(asked: Asked) -> list[Answer]:
    """Return the answers, sorted by node."""
    return sorted(asked.answers, key=lambda answer: answer.node)


def show_answers(answers: list[Answer], *, bodies: bool) -> None:
    """Print a line for each worker.

    :param bodies: also print what it answered.
    """
    for answer in answers:
        node, value = answer.node, answer.value
        is_error = isinstance(value, dict) and "error" in value and "ok" not in value
        word = styled("ERROR", fg="red", bold=True) if is_error else styled("OK", fg="green", bold=True)
        say(styled("->", bold=True), "  ", styled(f"{node}: ", fg="cyan", bold=True), word)
        if bodies and (text := _shown(value)):
            say_lines(_indented(text))


def show_count(count: int) -> None:
    """Print how many nodes are online."""
    say_lines(f"\n{count} {'node' if count == 1 else 'nodes'} online.")


def _shown(value: Any) -> str:
    try:
        return body_of(value)
    except RecursionError:
        return "- nested too deeply to be shown -"


def body_of(value: Any) -> str:
    """Return a worker's answer as Celery prints it (celery: ``CLIContext.pretty``)."""
    match value:
        case []:
            return "- empty -"
        case list():
            return "\n".join(f"* {item}" for item in value)
        case {"ok": inner} | {"error": inner}:
            return _indented(body_of(inner))
        case dict():
            return json.dumps(value, sort_keys=True, indent=4, default=str)
        case str():
            return value
    return pformat(value)


def _indented(text: str) -> str:
    return "\n".join(f"{INDENT}{line}" for line in text.split("\n"))
