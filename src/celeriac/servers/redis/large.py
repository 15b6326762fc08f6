"""Sends values that a server may find too large.

Rules: a value larger than the server's limit is not sent: the server would close the connection, often without an
error, and all other calls on it would fail, too. The error names both sizes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from celeriac.errors import BackendUnavailable, BrokerUnavailable, CeleriacError, EncodeError
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.protocol.connection import LARGE
from celeriac.servers.redis.protocol.errors import LinkDown

R = TypeVar("R")

_LIMITS = ("proto-max-bulk-len", "client-query-buffer-limit", "maxmemory")
"""The settings of a Redis that end the size of a value. The first can be no less than ``LARGE``."""


class Limit(msgspec.Struct, frozen=True):
    """The largest value that a server takes.

    :param setting: the name of what says so; ``""`` where the server does not tell.
    """

    size: int = 512 * 1024 * 1024
    setting: str = ""


class LargeValues:
    """Sends large values to one Redis."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tells_limits = True

    async def check(self, sizes: Sequence[int], what: Callable[[int], str]) -> None:
        """Raise ``EncodeError`` for the first that is too large, before anything is sent.

        :param what: names the one at this place.
        """
        if not sizes or max(sizes) < LARGE:
            return
        limit = await self._limit()
        for place, size in enumerate(sizes):
            if size > limit.size:
                raise self._too_large(size, what(place), limit)

    async def send(
        self, size: int, what: str, send: Callable[[], Awaitable[R]], *, repeatable: bool = True
    ) -> R:
        """Send something by a call of its own, and return the answer.

        :param repeatable: whether the call may be made twice.

        Raises ``EncodeError`` with both sizes for what the server does not take: before it is sent where the server
        tells its limits, else when it has closed the connection over it.
        """
        limit = await self._limit()
        if size > limit.size:
            raise self._too_large(size, what, limit)
        try:
            return await send()
        except CeleriacError as error:
            if _is_said(error):
                raise self._too_large(size, what, limit) from error
            if not repeatable or not await self._is_to_blame(error):
                raise
        try:
            return await send()
        except CeleriacError as error:
            if not _is_said(error) and not await self._is_to_blame(error):
                raise
            raise self._too_large(size, what, limit) from error

    async def _limit(self) -> Limit:
        if not self._tells_limits:
            return Limit()
        answers = await self._link.calls([("CONFIG", "GET", name) for name in _LIMITS])
        unavailable = (BackendUnavailable, BrokerUnavailable)
        self._tells_limits = not all(
            isinstance(answer, CeleriacError) and not isinstance(answer, unavailable) for answer in answers
        )
        return _read(answers)

    async def _is_to_blame(self, error: CeleriacError) -> bool:
        """Whether the server closed the connection because of the value that was sent, and for no other reason."""
        if not isinstance(error.__cause__, LinkDown):
            return False
        try:
            await self._link.call("PING")
        except CeleriacError:
            return False
        return True

    def _too_large(self, size: int, what: str, limit: Limit) -> EncodeError:
        said = f" ({limit.setting})" if limit.setting else ""
        return EncodeError(
            f"{what} is too large: it has {size} bytes, and {self._link.target} takes {limit.size} at most{said}; "
            "keep such a value elsewhere and send where it is"
        )


def _is_said(error: CeleriacError) -> bool:
    return "Protocol error" in str(error)


def _read(answers: Sequence[Any]) -> Limit:
    pairs = [answer for answer in answers if isinstance(answer, list) and len(answer) == 2]
    told = [(int(size), name.decode()) for name, size in pairs if size.isdigit() and int(size) > 0]
    return Limit(*min(told)) if told else Limit()
