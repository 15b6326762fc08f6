"""The result store of Redis (Celery: the ``redis`` result backend).

Rules: a record is one key that expires and one message on the channel of the same name, written together; a stored
SUCCESS stays. A record that another writer compressed cannot be recognised as a SUCCESS by the script.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from typing import Any

from celeriac.contracts.backend import EncodedResult, Replies, check_text
from celeriac.contracts.board import Mark
from celeriac.errors import BackendError, BackendUnavailable, CeleriacError, Finding
from celeriac.quantities import GRACE, or_none, require
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.offload import in_thread
from celeriac.servers.redis.board import MARK_PREFIX, UNMARK, RedisBoard, mark_key
from celeriac.servers.redis.chords import RedisChords
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.large import LargeValues
from celeriac.servers.redis.link import Link, Script
from celeriac.servers.redis.listener import Listener
from celeriac.servers.redis.protocol.connection import LARGE
from celeriac.servers.redis.rights import RightsCheck
from celeriac.servers.redis.url import RedisTarget, parse_redis_url
from celeriac.wire.content import Codecs
from celeriac.wire.names import backend_prefix, group_key, result_key
from celeriac.wire.result import SUCCESS, ResultRecord, decode, encode, take_long, takes_long

_STORE_BATCH = 1000
_LOAD_BATCH = 500

STORING = r"""
local function succeeded(old)
  local readable, meta = pcall(cjson.decode, old)
  if readable and type(meta) == 'table' then return meta.status == 'SUCCESS' end
  -- msgpack, yaml or pickle: the name is followed by its value, give or take a few bytes of form.
  local _, at = string.find(old, 'status', 1, true)
  return at and string.find(string.sub(old, at + 1, at + 24), 'SUCCESS', 1, true)
end

-- Stores and tells; returns what refused it, else nil. A stored success stays.
local function store(key, success, record, milliseconds)
  if success == '0' then
    local old = redis.pcall('GET', key)
    if type(old) == 'table' and old.err then return old.err end
    if old and succeeded(old) then return nil end
  end
  local answer
  if milliseconds == '0' then
    answer = redis.pcall('SET', key, record)
  else
    answer = redis.pcall('SET', key, record, 'PX', milliseconds)
  end
  if type(answer) == 'table' and answer.err then return answer.err end
  answer = redis.pcall('PUBLISH', key, record)
  return type(answer) == 'table' and answer.err or nil
end
"""

_STORE = Script(
    STORING
    + r"""
-- KEYS: a result each. ARGV: milliseconds to live or 0, then for each: 1 if it is a success, the record.
-- Returns position and error of each that was refused.
local failures = {}
for i = 1, #KEYS do
  local refused = store(KEYS[i], ARGV[2 * i], ARGV[2 * i + 1], ARGV[1])
  if refused then
    failures[#failures + 1] = i - 1
    failures[#failures + 1] = refused
  end
end
return failures
"""
)


_STORE_AND_UNMARK = Script(
    STORING
    + UNMARK
    + r"""
-- KEYS: a result, the key of a mark. ARGV: milliseconds to live or 0, 1 if it is a success, the record, the mark's name
-- and value. Returns the error that refused the result.
local refused = store(KEYS[1], ARGV[2], ARGV[3], ARGV[1])
if not refused then unmark(KEYS[2], ARGV[4], ARGV[5]) end
return refused
"""
)


class RedisBackend:
    """Results in one Redis; see ``celeriac.contracts.backend.Backend``.

    :param url: see ``celeriac.servers.redis.url.parse_redis_url``.
    :param serializer: what records are written with; any that ``codecs`` accepts are read.
    :param expires: seconds until a record is dropped; ``None`` or 0 keeps it.
    :param extended: keep name, arguments, worker, retries and queue too (Celery: ``result_extended``).
    :param key_prefix: Celery's ``global_keyprefix`` of results. Overrides the URL's.
    :param timeout: seconds for any one call.
    :param connections: those to this server, where there are some already; their timeout holds.
    :ivar key: returns the key and the channel of a task's result.
    """

    replies: Replies | None = None

    def __init__(
        self,
        url: str,
        codecs: Codecs,
        *,
        serializer: str = "json",
        expires: float | None = 86400.0,
        extended: bool = False,
        key_prefix: str = "",
        timeout: float = 5.0,
        connections: ConnectionPool | None = None,
    ) -> None:
        require("expires", expires, or_none(GRACE))
        target = parse_redis_url(url)
        pool = connections or ConnectionPool(target, timeout)
        self._link = Link(target, pool, unavailable=BackendUnavailable, refused=BackendError)
        self._codecs = codecs
        self._serializer = serializer
        self._extended = extended
        self.expires_ms = 0 if not expires else max(1, round(expires * 1000))
        self._prefix = backend_prefix(key_prefix or self._link.target.key_prefix)
        self.key: Callable[[str], str] = (self._prefix + result_key("")).__add__
        self._chords = RedisChords(self._link, codecs, serializer, self._prefix, -(-self.expires_ms // 1000))
        self._board = RedisBoard(self._link, self._prefix)
        self._large = LargeValues(self._link)
        self._listener = Listener(self._link, self.key, self._decode, partial(takes_long, codecs=codecs))
        self._store: Coalescer[EncodedResult, None] = Coalescer(self._store_trip, _STORE_BATCH, _weigh)
        self._load: Coalescer[Sequence[str], list[bytes | None]] = Coalescer(self._load_all, _LOAD_BATCH)

    @property
    def chords(self) -> RedisChords:
        return self._chords

    @property
    def database(self) -> int:
        """The number of the database that results are in."""
        return self._link.target.db

    def shares(self, target: RedisTarget) -> bool:
        """Whether results are on this server, in whichever database."""
        return self._link.target.is_same_server(target)

    def refusal(self, text: str) -> CeleriacError:
        """Return the error for what the server told a script."""
        return self._link.refusal(text)

    @property
    def board(self) -> RedisBoard:
        return self._board

    def encode(self, record: ResultRecord) -> EncodedResult:
        payload = encode(record, self._codecs, serializer=self._serializer, extended=self._extended)
        return EncodedResult(record, payload)

    check_id = staticmethod(check_text)

    async def store(self, encoded: EncodedResult) -> None:
        self._link.check_name(encoded.record.task_id)
        if len(encoded.payload) < LARGE:
            await self._store(encoded)
        else:
            name = f"the result of {encoded.record.name or 'task'}[{encoded.record.task_id}]"
            await self._large.send(len(encoded.payload), name, partial(self._store_alone, encoded))

    async def store_and_unmark(self, encoded: EncodedResult, mark: Mark) -> None:
        """See ``celeriac.contracts.backend.UnmarkingBackend``."""
        self._link.check_name(encoded.record.task_id)
        self._link.check_name(mark.key)
        store = partial(self._store_one, encoded, mark)
        if len(encoded.payload) < LARGE:
            await store()
        else:
            name = f"the result of {encoded.record.name or 'task'}[{encoded.record.task_id}]"
            await self._large.send(len(encoded.payload), name, store)

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        if not task_ids:
            return []
        self._check(task_ids)
        raws = await self._load(task_ids)
        if take_long([raw for raw in raws if raw is not None], self._codecs):
            return await in_thread(lambda: self._decoded(task_ids, raws))
        return self._decoded(task_ids, raws)

    def _decoded(self, task_ids: Sequence[str], raws: Sequence[bytes | None]) -> list[ResultRecord | None]:
        return [
            None if raw is None else self._decode(task_id, raw)
            for task_id, raw in zip(task_ids, raws, strict=True)
        ]

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        self._check(task_ids)
        wait = await self._listener.join(task_ids)
        try:
            yield wait
        finally:
            self._listener.leave(wait)

    async def forget(self, task_ids: Sequence[str]) -> None:
        self._check(task_ids)
        if task_ids:
            await self._link.call("DEL", *map(self.key, task_ids))

    async def ping(self) -> str:
        return await self._link.describe()

    async def examine(self) -> Sequence[Finding]:
        marks = self._prefix + MARK_PREFIX
        return await RightsCheck(self._link).results(self.key(""), self._prefix + group_key(""), marks)

    async def close(self) -> None:
        await self._store.drain()
        await self._load.drain()
        await self._chords.drain()
        await self._board.drain()
        await self._listener.close()
        await self._link.close()

    async def _store_alone(self, encoded: EncodedResult) -> None:
        (answer,) = await self._store_trip([encoded])
        if answer is not None:
            raise answer

    async def _store_one(self, encoded: EncodedResult, mark: Mark) -> None:
        keys = self.key(encoded.record.task_id), mark_key(self._prefix, mark.key)
        success = "1" if encoded.record.status == SUCCESS else "0"
        arguments = self.expires_ms, success, encoded.payload, mark.name, mark.value
        if refused := await self._link.run(_STORE_AND_UNMARK, keys, arguments):
            raise self._link.refusal(refused.decode(errors="replace"))

    async def _store_trip(self, trip: Sequence[EncodedResult]) -> Sequence[BaseException | None]:
        answers: list[BaseException | None] = [None] * len(trip)
        arguments: list[Any] = [self.expires_ms]
        for encoded in trip:
            arguments += "1" if encoded.record.status == SUCCESS else "0", encoded.payload
        keys = [self.key(encoded.record.task_id) for encoded in trip]
        failures = await self._link.run(_STORE, keys, arguments)
        for position, text in zip(failures[::2], failures[1::2], strict=True):
            answers[position] = self._link.refusal(text.decode(errors="replace"))
        return answers

    async def _load_all(self, batch: Sequence[Sequence[str]]) -> list[list[bytes | None]]:
        raws = iter(await self._link.call("MGET", *map(self.key, chain.from_iterable(batch))))
        return [[next(raws) for _ in task_ids] for task_ids in batch]

    def _check(self, task_ids: Collection[str]) -> None:
        for task_id in task_ids:
            self._link.check_name(task_id)

    def _decode(self, task_id: str, raw: bytes) -> ResultRecord:
        return decode(raw, self._codecs, task_id, self._serializer)


def _weigh(encoded: EncodedResult) -> int:
    return len(encoded.payload)
