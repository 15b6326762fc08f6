"""Acknowledges messages for a worker, in the process that runs their tasks; see ``celeriac.contracts.server.Delegate``.

Rules: it blocks, and asks over a connection of its own, which it opens when it is first asked. Redis decides whether
the worker still holds the message, as where the worker asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.servers.redis.renewal import Refused, Server, written


class RedisDelegate:
    """Acknowledges messages of one broker.

    :param place: how the Redis is reached; see ``renewal.Server``.
    :param digest: of the script that acknowledges.
    :param text: the script itself, for a Redis that does not know it.
    :param keys: the script's keys.
    """

    def __init__(self, place: dict[str, Any], digest: str, text: str, keys: Sequence[str]) -> None:
        self._facts = place, digest, text, keys
        self._server = Server(place)
        # All but the tag is written once.
        self._known = _beginning(("EVALSHA", digest, len(keys), *keys))
        self._whole = _beginning(("EVAL", text, len(keys), *keys))

    def __reduce__(self) -> Any:
        return RedisDelegate, self._facts

    def acknowledge(self, tag: str) -> bool:
        try:
            return not self._run(tag)
        except BaseException:
            self._server.close()
            raise

    def _run(self, tag: str) -> Any:
        name = tag.encode()
        end = b"$%d\r\n%b\r\n" % (len(name), name)
        try:
            return self._server.run(self._known + end)
        except Refused as refusal:
            if not str(refusal).startswith("NOSCRIPT"):
                raise
            return self._server.run(self._whole + end)


def _beginning(command: Sequence[Any]) -> bytes:
    """Return a command that lacks its last part, as it is sent."""
    return b"*%d\r\n" % (len(command) + 1) + written(command).partition(b"\r\n")[2]
