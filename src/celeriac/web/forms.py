"""The forms of the pages: what they send, and what is told of what was done.

Rules: what was done is said on the page that it leads back to, and is kept with the name of the user who did it. A
page's form gives ``back``, a path within the dashboard.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import parse_qs, quote

import msgspec
from starlette.requests import Request

from celeriac.errors import CeleriacError
from celeriac.monitor.again import Refused
from celeriac.monitor.monitor import Monitor

LARGEST = 1_000_000
"""Bytes of a form."""

MOST_AT_ONCE = 10_000
"""Tasks that one action may mean."""


class Outcome(msgspec.Struct, frozen=True):
    """What was done.

    :param what: for the log.
    :param text: for the person.
    :param back: the path to go on with, relative.
    """

    what: str
    text: str
    back: str


Act = Callable[[Monitor, Request], Awaitable[Outcome]]


_OF_URLS = "/?&=%#:;+,@!$'()*~"
"""What stands in the address of a page; anything else, such as the end of a line, is escaped."""


class Form:
    """The fields of a form."""

    def __init__(self, fields: Mapping[str, Sequence[str]], root: str) -> None:
        self._fields = fields
        self._root = root

    def one(self, name: str) -> str:
        """Return a field; empty where there is none."""
        return (self._fields.get(name) or [""])[0]

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return list(self._fields.get(name, ()))

    def back(self) -> str:
        """Return where to go on, which never leads out of the dashboard."""
        path = quote(self.one("back").lstrip("/"), safe=_OF_URLS)
        return self._root + (path if ":" not in path.partition("/")[0] and "//" not in path else "")


async def read_form(request: Request) -> Form:
    """Return what was sent. Raises ``Refused`` for more than ``LARGEST`` bytes, and for too many fields."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise Refused("the form is too large")
    path = request.scope["path"].removeprefix(request.scope.get("root_path", "")).lstrip("/")
    try:
        fields = parse_qs(
            body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MOST_AT_ONCE + 100
        )
    except ValueError as error:
        raise Refused("the form has too many fields") from error
    return Form(fields, "../" * path.count("/") or "./")


async def done(what: str, deed: Callable[[], Awaitable[str]] | None, form: Form) -> Outcome:
    """Do it, and return what to tell; without a deed, and where it raises ``CeleriacError``, that nothing was done."""
    if deed is None:
        return Outcome(what, "nothing was done: no such action", form.back())
    try:
        text = await deed()
    except CeleriacError as error:
        text = f"not done: {error}"
    return Outcome(what, text, form.back())


def named(ids: Sequence[str]) -> str:
    """Return the first of these ids, and how many more there are."""
    return " ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
