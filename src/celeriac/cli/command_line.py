"""Takes passwords out of what ``ps`` shows of this process to every user of the machine.

Rules: only this process's own memory is written; where that cannot be done, nothing is, and the command goes on.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from celeriac.servers.url_parts import masked

_ARG_START, _ARG_END = 45, 46
"""Places of the two addresses behind the process's name in ``/proc/<pid>/stat`` (proc(5))."""


def hide_passwords() -> None:
    """Put ``***`` in place of the secrets of URLs among the arguments of this process (Linux only)."""
    with suppress(OSError, ValueError, IndexError):
        facts = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(facts[_ARG_START]), int(facts[_ARG_END])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            given = memory.read(end - start)
            shown = b"\0".join(_shown(argument) for argument in given.split(b"\0"))
            if len(shown) <= len(given) and shown != given:
                memory.seek(start)
                memory.write(shown.ljust(len(given), b"\0"))


def _shown(argument: bytes) -> bytes:
    """Return the argument, an option with ``=`` included, without its secrets."""
    text = argument.decode(errors="surrogateescape")
    head, equals, url = text.partition("=") if text.startswith("-") else ("", "", text)
    if "://" not in url:
        return argument
    return f"{head}{equals}{masked(url)}".encode(errors="surrogateescape")
