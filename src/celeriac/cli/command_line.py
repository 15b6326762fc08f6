"""Hides passwords in this process's command line, which ``ps`` shows to every user of the machine.

Rules: only this process's own memory is written; where that cannot be done, nothing is, and the command goes on.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_URL = re.compile(r"[a-z][\w+.-]*://.*", re.IGNORECASE | re.DOTALL)
_LOGIN = re.compile(r"[^=]*:.*@.*", re.DOTALL)
"""Matches an argument that is a URL without its scheme."""

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
            if shown != given:
                memory.seek(start)
                # The last byte stays zero: without it the kernel would show the environment too.
                memory.write(shown[: len(given) - 1].ljust(len(given), b"\0"))


def _shown(argument: bytes) -> bytes:
    """Return the argument, whatever option it is attached to, without its secrets."""
    text = argument.decode(errors="surrogateescape")
    url = _URL.search(text) or _LOGIN.search(text)
    if url is None:
        return argument
    from celeriac.servers.url_parts import masked  # most command lines hold no URL

    return f"{text[: url.start()]}{masked(url.group())}".encode(errors="surrogateescape")
