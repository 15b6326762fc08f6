"""One database of a Redis as the broker or a result store uses it.

Rules: one call is one round trip with one deadline, which is put off while bytes move. The driver's errors are
translated here into those of the broker or the result store, with the original chained. A link never retries, since
only its caller knows which calls may run twice. Links to one server may share connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hiredis import PushNotification, pack_command
from redis.asyncio.sentinel import MasterNotFoundError
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

from celeriac.errors import CeleriacError
from celeriac.servers.causes import as_cause, next_step
from celeriac.servers.redis.connection_pool import ConnectionPool, Unfit, dial
from celeriac.servers.redis.upload import exchange, read_answer
from celeriac.servers.redis.url import RedisTarget
from celeriac.servers.tls import refusal as tls_refusal

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
    """Calls to one database of a Redis.

    :param target: which database.
    :param pool: the connections to its server.
    :param unavailable: the error to raise when another try may help.
    :param refused: the error to raise when another try will not help.
    :ivar on_wrong_type: called when a script met a key of the wrong type; the script runs again if it returns true. A
        script that is run so changes nothing before it has looked at the types of its keys.
    """

    def __init__(
        self,
        target: RedisTarget,
        pool: ConnectionPool,
        *,
        unavailable: type[CeleriacError],
        refused: type[CeleriacError],
    ) -> None:
        self.target = target
        self.timeout = pool.timeout
        self.unavailable = unavailable
        self.refused = refused
        self._pool = pool
        self.on_wrong_type: Callable[[], Awaitable[bool]] | None = None

    async def call(self, *command: Any) -> Any:
        """Return the answer to one command."""
        return _only(await self.calls([command]))

    async def calls(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the answers to several commands; a refused one's answer is the translated error."""
        return [
            self.translate(answer) if isinstance(answer, ResponseError) else answer
            for answer in await self._exchange(commands)
        ]

    async def answers(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the answers to several commands; raise if one of them was refused, after all were answered."""
        answers = await self.calls(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Return what a script returned."""
        return _only(await self.run_each(script, [(keys, arguments)]))

    async def run_each(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """Run a script once for each keys and arguments, in one round trip; a refused one's answer is the error.

        The server is taught the script if it does not know it.
        """
        commands = [("EVALSHA", script.digest, len(keys), *keys, *arguments) for keys, arguments in calls]
        answers = await self._exchange(commands)
        if any(isinstance(answer, ResponseError) for answer in answers):
            await self._run_again(script, commands, answers, _is_untaught)
            mend = self.on_wrong_type
            if mend is not None and any(map(_is_wrong_type, answers)) and await mend():
                await self._run_again(script, commands, answers, _is_wrong_type)
            return [self.translate(one) if isinstance(one, ResponseError) else one for one in answers]
        return answers

    async def _run_again(
        self,
        script: Script,
        commands: Sequence[Sequence[Any]],
        answers: list[Any],
        concerns: Callable[[Any], bool],
    ) -> None:
        """Replace the answers that are concerned by those of another run, in which the server learns the script."""
        places = [place for place, answer in enumerate(answers) if concerns(answer)]
        if places:
            taught = [("EVAL", script.text, *commands[place][2:]) for place in places]
            for place, answer in zip(places, await self._exchange(taught), strict=True):
                answers[place] = answer

    async def open_line(self, protocol: int = 2) -> Line:
        """Return a connection of its own, for what cannot share one: pushes and what they depend on.

        :param protocol: Redis's, 2 or 3. A server may refuse 3.
        """
        async with self.deadline():
            return Line(self, await dial(self._pool.open(self, self.target.db), protocol), protocol)

    async def check_door(self) -> None:
        """Make a connection and drop it; raise the error that keeps peers, too, from connecting."""
        async with self.deadline():
            connection = await dial(self._pool.open(self, self.target.db))
            try:
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
        except Unfit as error:
            raise self.refused(str(error)) from error.__cause__
        except MasterNotFoundError as error:
            raise await self._why_no_master(error) from as_cause(error)
        except (RedisError, OSError, TimeoutError) as error:
            raise self.translate(error) from as_cause(error)
        except RuntimeError as error:
            # uvloop's word for writing to a connection that was cut a moment ago; asyncio drops such a write.
            if "handler is closed" not in str(error):
                raise
            raise self.translate(error) from as_cause(error)

    def translate(self, error: BaseException) -> CeleriacError:
        """Return the owner's error for a driver's, with what to do about it."""
        text = str(error) or type(error).__name__
        if isinstance(error, OutOfMemoryError):
            text = f"OOM {text}"
        # A login that worked once may work again: a changed password or certificate must not end running tasks.
        kind = self.unavailable if self._pool.was_let_in else self.refused
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
        return self.unavailable(f"{self.target} is not available: {text.rstrip('.')}{next_step(error)}")

    async def _why_no_master(self, error: MasterNotFoundError) -> CeleriacError:
        """Return the error: an unknown master, or a sentinel that refuses the login, is no passing outage."""
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.target.master)
        try:
            async with asyncio.timeout(self.timeout):
                answers = await asyncio.gather(
                    *(sentinel.execute_command(*question) for sentinel in self._pool.sentinels),
                    return_exceptions=True,
                )
        except TimeoutError:
            return self.translate(error)
        if any(answer and not isinstance(answer, BaseException) for answer in answers):
            return self.translate(error)  # they know it, and it is down
        kind = self.unavailable if self._pool.was_let_in else self.refused
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
        """Close the connections that no other link uses, but for lines. Idempotent."""
        await self._pool.close(self)

    async def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        pool = self._pool
        async with self.deadline() as deadline:
            driver = pool.open(self, self.target.db)
            connection = await pool.take(driver)
            try:
                answers = await exchange(connection, _pack(commands), deadline, self.timeout)
                if answers and not pool.was_let_in:
                    pool.was_let_in = not isinstance(answers[0], Exception)
                return answers
            finally:
                await pool.give_back(driver, connection)


class Line:
    """One connection with a single user; it may be subscribed or tracked.

    :ivar protocol: Redis's, 2 or 3.
    """

    def __init__(self, link: Link, connection: Any, protocol: int) -> None:
        self.protocol = protocol
        self._link = link
        self._connection = connection
        self._open = True

    async def call(self, *command: Any) -> Any:
        """Return the answer to one command. Not for a line that is being read by another task."""
        return _only(await self.calls([command]))

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
        await self.send_all([command])

    async def send_all(self, commands: Sequence[Sequence[Any]]) -> None:
        """Write commands; their answers come out of ``receive``, one by one."""
        async with self._standing():
            await self._connection.send_packed_command(_pack(commands))

    async def read(self) -> Any:
        """Wait, without end, for what the server sends next."""
        try:
            return await self._connection.read_response(timeout=math.inf)
        except (RedisError, OSError) as error:
            raise self._link.translate(error) from error

    async def receive(self) -> tuple[bool, Any]:
        """Wait, without end, for what the server sends next: whether it is a push, and what it says.

        What answers a command that was refused is the translated error.
        """
        try:
            news = await self._connection.read_response(timeout=math.inf, push_request=True)
        except ResponseError as error:
            return False, self._link.translate(error)
        except (RedisError, OSError) as error:
            raise self._link.translate(error) from error
        return isinstance(news, list if self.protocol == 2 else PushNotification), news

    @asynccontextmanager
    async def _standing(self) -> AsyncIterator[None]:
        """Use the connection unless it was cut: the driver would replace it, without its subscriptions."""
        if not self._connection.is_connected:
            raise self._cut()
        try:
            async with self._link.deadline():
                yield
        except AttributeError as error:
            # The driver fails if the task that reads this connection finds it cut just before this write.
            if self._connection.is_connected:
                raise
            raise self._cut() from error

    def _cut(self) -> CeleriacError:
        return self._link.translate(LinkDown("the connection was cut"))

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._open:
            self._open = False
            await self._connection.disconnect(nowait=True)


def _only(answers: Sequence[Any]) -> Any:
    """Return the only answer, or raise it."""
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


def _pack(commands: Sequence[Sequence[Any]]) -> list[bytes]:
    """Return the commands as the server reads them. The driver's own packing costs a batch several times as much."""
    return [pack_command(tuple(command)) for command in commands]


def _is_passing(error: ResponseError) -> bool:
    return isinstance(error, _PASSING_ERRORS) or _PASSING.search(str(error)) is not None


def _is_untaught(answer: Any) -> bool:
    return isinstance(answer, NoScriptError)


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
