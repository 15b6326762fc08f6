"""A process's connections to one Redis, for the broker and the result backend alike.

Rules: one call is one round trip with one deadline; the driver's errors end here, translated into those of the owner
and chained; no retry is made here, since only the caller knows what may be done twice. Connections are opened on
first use and belong to the event loop that opened them.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio
import redis.asyncio.sentinel
from hiredis import pack_command
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as LinkDown,
)

import redis
from celeriac.errors import CeleriacError
from celeriac.quantities import SECONDS, require
from celeriac.servers.redis.upload import LARGE, exchange_slowly, read_answer
from celeriac.servers.redis.url import RedisTarget, parse_redis_url
from celeriac.servers.tls import BadFile, open_context
from celeriac.servers.tls import refusal as tls_refusal

_FRESH = 1.0
"""Seconds within which an idle connection is used again without asking whether it still stands."""

_SURPLUS = 5.0
"""Seconds after which a connection is closed that the others did the work of."""

_PASSING = re.compile(r"\b(OOM|READONLY|MISCONF|LOADING|NOREPLICAS|MASTERDOWN|TRYAGAIN|BUSY|CLUSTERDOWN)\b")
"""Answers of a server that is there but cannot serve now; the driver has classes for some."""

_PASSING_ERRORS = (OutOfMemoryError, ReadOnlyError, MasterDownError, TryAgainError, ClusterDownError)


class Script:
    """A Lua script, known to the server by its digest."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_VERSION = Script("return redis.REDIS_VERSION or ''")
"""Known to scripts from Redis 7 on; ``INFO`` may be kept from a user who needs nothing of it."""


class Link:
    """Connections to one Redis.

    :param url: see ``redis_url``.
    :param timeout: seconds for any one call, connecting included.
    :param unavailable: what to raise when another try may help.
    :param refused: what to raise when it will not.
    :ivar on_wrong_type: called when a script met a key of the wrong type; the script runs again if it returns true. A
        script that is run so changes nothing before it has looked at the types of its keys.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        unavailable: type[CeleriacError],
        refused: type[CeleriacError],
    ) -> None:
        require("timeout", timeout, SECONDS)
        self.target: RedisTarget = parse_redis_url(url)
        self.timeout = timeout
        self.unavailable = unavailable
        self.refused = refused
        # The driver's own annotations are too incomplete for strict checking.
        self._pool: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[tuple[Any, float]] = []
        self._sentinels: list[Any] = []
        self._was_let_in = False
        self.on_wrong_type: Callable[[], Awaitable[bool]] | None = None

    async def call(self, *command: Any) -> Any:
        """Return the answer to one command."""
        (answer,) = await self.calls([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the answers to several commands; a refused one's answer is the translated error."""
        return [
            self.translate(answer) if isinstance(answer, ResponseError) else answer
            for answer in await self._exchange(commands)
        ]

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Return what a script returned."""
        (answer,) = await self.run_each(script, [(keys, arguments)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run_each(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """Run a script once for each keys and arguments, in one round trip; a refused one's answer is the error.

        The server is taught the script if it does not know it.
        """
        commands = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        answers = await self._run(script, commands)
        wrong = [place for place, answer in enumerate(answers) if _is_wrong_type(answer)]
        if wrong and self.on_wrong_type is not None and await self.on_wrong_type():
            again = await self._run(script, [commands[place] for place in wrong])
            for place, answer in zip(wrong, again, strict=True):
                answers[place] = answer
        return [self.translate(answer) if isinstance(answer, ResponseError) else answer for answer in answers]

    async def _run(self, script: Script, commands: Sequence[Sequence[Any]]) -> list[Any]:
        answers = await self._exchange([("EVALSHA", script.digest, *command) for command in commands])
        untaught = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if untaught:
            taught = await self._exchange([("EVAL", script.text, *commands[place]) for place in untaught])
            for place, answer in zip(untaught, taught, strict=True):
                answers[place] = answer
        return answers

    async def open_line(self) -> Line:
        """Return a connection of its own, for what cannot share one: pushes and what they depend on."""
        async with self.deadline():
            pool = self._open()
            return Line(self, pool, await pool.get_connection())

    async def check_door(self) -> None:
        """Make a connection and drop it; raise what keeps others from making one."""
        async with self.deadline():
            connection = self._open().make_connection()
            try:
                await connection.connect()
                await connection.send_packed_command(_pack([("PING",)]))
                await read_answer(connection)
            finally:
                await connection.disconnect(nowait=True)

    async def describe(self) -> str:
        """Connect and return one line that says what answered."""
        version = await self.run(_VERSION, (), ())
        return f"{' '.join(('Redis', version.decode(errors='replace'))).strip()} at {self.target}"

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[asyncio.Timeout]:
        """End the block after ``timeout`` seconds, and translate what the driver raises in it."""
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                yield deadline
        except MasterNotFoundError as error:
            raise await self._why_no_master(error) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self.translate(error) from error
        except RuntimeError as error:
            # uvloop's word for writing to a connection that was cut a moment ago; asyncio drops such a write.
            if "handler is closed" not in str(error):
                raise
            raise self.translate(error) from error

    def translate(self, error: BaseException) -> CeleriacError:
        """Return the owner's error for a driver's, with what to do about it."""
        text = str(error) or type(error).__name__
        if isinstance(error, OutOfMemoryError):
            text = f"OOM {text}"
        # What was good once may be so again: a new password or certificate must not cost what runs meanwhile.
        kind = self.unavailable if self._was_let_in else self.refused
        if reason := tls_refusal(error):
            return kind(f"{self.target} cannot be connected to: {reason}")
        if isinstance(error, AuthenticationError | AuthorizationError) or "unauthenticated" in text:
            return kind(f"{self.target} refused the login ({text}); check user and password in the URL")
        if isinstance(error, NoPermissionError):
            return self.refused(f"{self.target}: {text}; give this ACL user the command and the keys")
        if isinstance(error, InvalidResponse):
            return self.refused(f"what answers at {self.target} is no Redis: {text}")
        if isinstance(error, ResponseError) and not _is_passing(error):
            return self.refused(f"{self.target} refused a command: {text}{_advice(text)}")
        if isinstance(error, MasterNotFoundError):
            text = "no sentinel names its master just now"  # the driver's own text lists what it logs in with
        if isinstance(error, TimeoutError):
            text = f"no answer within {self.timeout:g} s"
        return self.unavailable(f"{self.target} is not available: {text}")

    async def _why_no_master(self, error: MasterNotFoundError) -> CeleriacError:
        """Return the owner's error: sentinels that know no such master, or let nobody in, will not tomorrow either."""
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.target.master)
        try:
            async with asyncio.timeout(self.timeout):
                answers = await asyncio.gather(
                    *(sentinel.execute_command(*question) for sentinel in self._sentinels),
                    return_exceptions=True,
                )
        except TimeoutError:
            return self.translate(error)
        if any(answer and not isinstance(answer, BaseException) for answer in answers):
            return self.translate(error)  # they know it, and it is down
        kind = self.unavailable if self._was_let_in else self.refused
        for answer in answers:
            if isinstance(answer, AuthenticationError | NoPermissionError | ResponseError):
                return kind(
                    f"a sentinel of {self.target} refused us ({answer}); check sentinel_username and sentinel_password"
                )
            if isinstance(answer, BaseException) and (reason := tls_refusal(answer)):
                return kind(f"a sentinel of {self.target} cannot be connected to: {reason}")
        if any(answer is None for answer in answers):
            return kind(
                f"no sentinel of {self.target} knows a master of this name; check master_name: "
                "SENTINEL MASTERS lists those they know"
            )
        return self.translate(error)

    def check_name(self, name: str) -> None:
        """Raise the owner's error for a name that no key can have, before it spoils a batch."""
        if name.isascii():
            return
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise self.refused(f"{name!r} is no text that a Redis key can hold: {error.reason}") from error

    def refusal(self, text: str) -> CeleriacError:
        """Return the owner's error for what the server told a script."""
        return self.translate(ResponseError(text))

    async def close(self) -> None:
        """Close every connection that is not a line of its own. Idempotent."""
        pool, self._pool, self._loop = self._pool, None, None
        self._idle.clear()
        sentinels, self._sentinels = self._sentinels, []
        for client in sentinels:
            await client.aclose()
        if pool is not None:
            await pool.disconnect()

    async def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        async with self.deadline() as deadline:
            pool = self._open()
            connection = await self._take(pool)
            try:
                packed = _pack(commands)
                if sum(map(len, packed)) < LARGE:
                    await connection.send_packed_command(packed)
                    answers = [await read_answer(connection) for _ in commands]
                else:
                    answers = await exchange_slowly(connection, packed, deadline, self.timeout)
                if answers and not self._was_let_in:
                    self._was_let_in = not isinstance(answers[0], Exception)
                return answers
            finally:
                await self._give_back(pool, connection)

    async def _take(self, pool: Any) -> Any:
        now = asyncio.get_running_loop().time()
        while len(self._idle) > 1 and now - self._idle[0][1] > _SURPLUS:
            connection, _ = self._idle.pop(0)
            await self._drop(pool, connection)
        if self._idle:
            connection, since = self._idle.pop()
            if now - since < _FRESH:
                return connection
            await pool.release(connection)
        # The pool looks whether a connection still stands, which costs more than a round trip.
        return await pool.get_connection()

    async def _give_back(self, pool: Any, connection: Any) -> None:
        if connection.is_connected and pool is self._pool:
            self._idle.append((connection, asyncio.get_running_loop().time()))
        else:
            await self._drop(pool, connection)

    async def _drop(self, pool: Any, connection: Any) -> None:
        await connection.disconnect(nowait=True)
        await pool.release(connection)

    def _open(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._pool is None:
            self._pool, self._loop = self._make_pool(), loop
        elif self._loop is not loop:
            raise self.refused(
                f"the connections to {self.target} belong to another event loop; make an object a loop"
            )
        return self._pool

    def _make_pool(self) -> Any:
        self._check_files()
        options = self._options()
        if self.target.master is not None:
            sentinels: Any = redis.asyncio.sentinel.Sentinel
            sentinel = sentinels(list(self.target.addresses), **self._sentinel_options(), **options)
            self._sentinels = sentinel.sentinels
            return sentinel.master_for(self.target.master).connection_pool
        kind: Any = redis.asyncio.Connection
        if self.target.path is not None:
            kind = redis.asyncio.UnixDomainSocketConnection
        elif self.target.tls is not None:
            kind = redis.asyncio.SSLConnection
        return redis.asyncio.ConnectionPool(connection_class=kind, **options)

    def _check_files(self) -> None:
        """Raise the owner's error for a TLS file that cannot be used: the driver would take it for an outage."""
        if self.target.security is None:
            return
        try:
            open_context(self.target.security)
        except BadFile as error:
            raise self.refused(f"the TLS files of {self.target} cannot be used: {error}") from error

    def _options(self) -> dict[str, Any]:
        """Return the driver's options. Protocol 2 everywhere: pushes arrive on lines made for them."""
        target = self.target
        options: dict[str, Any] = {
            "db": target.db,
            "username": target.username,
            "password": target.password,
            "client_name": target.client_name,
            "protocol": 2,
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
        }
        if target.path is not None:
            return options | {"path": target.path}
        options["socket_keepalive"] = True
        if target.master is not None and target.tls is not None:
            options["ssl"] = True
        if target.master is None:
            (options["host"], options["port"]), *_ = target.addresses
        return options | (target.tls or {})

    def _sentinel_options(self) -> dict[str, Any]:
        login: dict[str, Any] = {
            "username": self.target.sentinel_username,
            "password": self.target.sentinel_password,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
        }
        return {
            "sentinel_kwargs": login | (self.target.tls or {}) | ({"ssl": True} if self.target.tls else {})
        }


class Line:
    """One connection that nobody else uses; it may be subscribed or tracked."""

    def __init__(self, link: Link, pool: Any, connection: Any) -> None:
        self._link = link
        self._pool = pool
        self._connection = connection
        self._open = True

    async def call(self, *command: Any) -> Any:
        """Return the answer to one command. Not for a line that is being read by another task."""
        (answer,) = await self.calls([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def calls(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the answers to several commands; a refused one's answer is the translated error."""
        async with self._standing():
            await self._connection.send_packed_command(_pack(commands))
            answers = [await read_answer(self._connection) for _ in commands]
        return [
            self._link.translate(answer) if isinstance(answer, ResponseError) else answer
            for answer in answers
        ]

    async def send(self, *command: Any) -> None:
        """Write a command; its answer comes out of ``read``."""
        async with self._standing():
            await self._connection.send_packed_command(_pack([command]))

    async def read(self) -> Any:
        """Wait, without end, for what the server sends next."""
        try:
            return await self._connection.read_response(timeout=math.inf)
        except (RedisError, OSError) as error:
            raise self._link.translate(error) from error

    @asynccontextmanager
    async def _standing(self) -> AsyncIterator[None]:
        """Use the connection as long as it stands: the driver would make it anew, without what it was subscribed to."""
        cut = self._link.translate(LinkDown("the connection was cut"))
        if not self._connection.is_connected:
            raise cut
        try:
            async with self._link.deadline():
                yield
        except AttributeError as error:
            # The driver stumbles when whoever reads this line finds it cut just before this is written.
            if self._connection.is_connected:
                raise
            raise cut from error

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._open:
            self._open = False
            await self._connection.disconnect(nowait=True)
            await self._pool.release(self._connection)


def _pack(commands: Sequence[Sequence[Any]]) -> list[bytes]:
    """Return the commands as the server reads them. The driver's own packing costs a batch several times as much."""
    return [pack_command(tuple(command)) for command in commands]


def _is_passing(error: ResponseError) -> bool:
    return isinstance(error, _PASSING_ERRORS) or _PASSING.search(str(error)) is not None


def _is_wrong_type(answer: Any) -> bool:
    return isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer)


def _advice(text: str) -> str:
    lower = text.lower()
    if "wrongtype" in lower:
        return "; a key of that name holds something else: use another queue name or key prefix"
    if "unknown command" in lower or "unknown redis command" in lower:
        return "; celeriac needs Redis 6.2 or newer, with its commands under their own names"
    if "noperm" in lower or "user executing the script" in lower:
        return "; give this ACL user the command, the key or the channel"
    return ""
