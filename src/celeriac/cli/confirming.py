"""What commands make sure of before they delete messages: that somebody means it, and that the queue is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from celeriac.cli.console import ask
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.client.app import App


def confirm(question: str) -> None:
    """Ask before messages are deleted. Raises ``CommandFailed`` without a terminal, ``Abort`` on a no."""
    if not sys.stdin.isatty():
        raise CommandFailed(f"{question} Nobody is here to ask: confirm with -y", Exit.USAGE)
    if not ask(question):
        raise CommandFailed("nothing was deleted")


async def require_queues(app: App, names: Sequence[str]) -> Sequence[str]:
    """Return the queues that are known. Raises ``CommandFailed`` if one of these names is not among them."""
    known = await app.connections().broker.queues()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"
            raise CommandFailed(f"there is no queue {name} here; {hint}")
    return known
