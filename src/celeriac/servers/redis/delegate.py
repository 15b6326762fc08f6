"""Acknowledges messages for a worker, in the process that runs their tasks; see ``celeriac.contracts.server.Delegate``.

Rules: it blocks, and asks over a connection of its own, which it opens when it is first asked. Redis decides whether
the worker still holds the message, as where the worker asks. Results of tasks that have ended there go along, so that
the trip to Redis is not made twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from celeriac.contracts.backend import EncodedResult
from celeriac.contracts.server import NotStored
from celeriac.servers.redis.link import Script
from celeriac.servers.redis.renewal import Refused, Server
from celeriac.servers.redis.results import STORING
from celeriac.servers.redis.scripts import TYPES
from celeriac.wire.result import SUCCESS

ACKNOWLEDGE = Script(
    TYPES
    + STORING
    + r"""
-- KEYS: unacked, index, leases, then results. ARGV: a tag or nothing, the broker's database, the results', milliseconds
-- for which a result lives or 0; then for each result 1 if it is a success, and the record.
-- Returns 1, 0 (the message was lost before), or the error that refused a result.
local refused
if #KEYS > 3 then
  if ARGV[2] ~= ARGV[3] then redis.call('SELECT', ARGV[3]) end
  for i = 4, #KEYS do
    refused = refused or store(KEYS[i], ARGV[2 * i - 3], ARGV[2 * i - 2], ARGV[4])
  end
  if ARGV[2] ~= ARGV[3] then redis.call('SELECT', ARGV[2]) end
end
if refused then return refused end
if ARGV[1] == '' then return 1 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])
"""
)


class Places(NamedTuple):
    """Where messages and results are.

    :param keys: of the messages that the worker holds.
    :param results: what the keys of results begin with.
    :param databases: the broker's, and the results'.
    :param expires_ms: how long a result lives, 0 for ever.
    """

    keys: tuple[str, str, str]
    results: str
    databases: tuple[int, int]
    expires_ms: int


class RedisDelegate:
    """Acknowledges messages of one broker.

    :param place: how the Redis is reached; see ``renewal.Server``.
    """

    def __init__(self, place: dict[str, Any], places: Places) -> None:
        self._facts = place, places
        self._server = Server(place)
        # What is the same for all messages is written once.
        self._keys = _written(*places.keys)
        self._terms = _written(*map(str, (*places.databases, places.expires_ms)))
        self._prefix = places.results

    def __reduce__(self) -> Any:
        return RedisDelegate, self._facts

    def acknowledge(self, tag: str, results: Sequence[EncodedResult] = ()) -> bool:
        keys: list[str] = []
        records: list[str | bytes] = []
        for result in results:
            keys.append(self._prefix + result.record.task_id)
            records += "1" if result.record.status == SUCCESS else "0", result.payload
        count = len(keys)
        rest = b"%b%b%b%b%b" % (
            _written(str(3 + count)),
            self._keys,
            _written(*keys, tag),
            self._terms,
            _written(*records),
        )
        try:
            answer = self._run(b"*%d\r\n" % (3 + 3 + 4 + 3 * count), rest)
        except BaseException:
            self.close()
            raise
        if isinstance(answer, bytes):
            raise NotStored(answer.decode(errors="replace"))
        return bool(answer)

    def close(self) -> None:
        """Close the connection; the next message opens one."""
        self._server.close()

    def _run(self, head: bytes, rest: bytes) -> Any:
        try:
            return self._server.run(head + _KNOWN + rest)
        except Refused as refusal:
            if not str(refusal).startswith("NOSCRIPT"):
                raise
            return self._server.run(head + _WHOLE + rest)


def _written(*parts: str | bytes) -> bytes:
    """Return parts of a command as they are sent."""
    encoded = [part if isinstance(part, bytes) else part.encode() for part in parts]
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded])


_KNOWN = _written("EVALSHA", ACKNOWLEDGE.digest)
_WHOLE = _written("EVAL", ACKNOWLEDGE.text)
