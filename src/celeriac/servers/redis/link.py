"""One database of a Redis as the broker or a result store uses it.

Rules: one call is one round trip with one deadline, which is put off while bytes move. The driver's errors are
translated here into those of the broker or the result store, with the original chained. A link never retries, since
only its caller knows which calls may run twice. Links to one server may share connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hiredis import PushNotification

from celeriac.errors import CeleriacError
from celeriac.servers.causes import as_cause, next_step
from celeriac.servers.redis.connection_pool import ConnectionPool, Unfit
from celeriac.servers.redis.protocol.connection import Connection
from celeriac.servers.redis.protocol.errors import NoMaster, NotRedis, Refused
from celeriac.servers.redis.url import RedisTarget
from celeriac.servers.tls import refusal as tls_refusal

_PASSING = re.compile(
    r"\b(OOM|READONLY|MISCONF|LOADING|NOREPLICAS|MASTERDOWN|UNBLOCKED|TRYAGAIN|BUSY|CLUSTERDOWN|"
    r"max number of clients)\b"
)
"""Answers of a server that is there but cannot serve now."""

_LOGIN = re.compile(
    r"^(WRONGPASS|NOAUTH)\b|\binvalid password\b|\bAUTH\b.*\bpassword\b|unauthenticated", re.IGNORECASE
)
"""Answers to a login that was wrong or left out."""


class Script:
    """A Lua script, known to the server by its digest."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_VERSION = Script("return redis.REDIS_VERSION or ''")
"""Known to scripts from Redis 7 on; ``INFO`` may be kept from a user who needs nothing of it."""


_TROUBLE = (Refused, NotRedis, NoMaster, Unfit, OSError, TimeoutError)
"""What a connection raises."""


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
            self.translate(answer) if isinstance(answer, Refused) else answer
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
        commands = [
            ("EVALSHA", script.digest, str(len(keys)), *keys, *arguments) for keys, arguments in calls
        ]
        answers = await self._exchange(commands)
        if any(isinstance(answer, Refused) for answer in answers):
            await self._run_again(script, commands, answers, _is_untaught)
            mend = self.on_wrong_type
            if mend is not None and any(map(_is_wrong_type, answers)) and await mend():
                await self._run_again(script, commands, answers, _is_wrong_type)
            return [self.translate(one) if isinstance(one, Refused) else one for one in answers]
        return answers

    async def run_after(
        self,
        wait: Sequence[Any],
        seconds: float,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        began: Callable[[int], None],
    ) -> tuple[Any, Any]:
        """Return the answer to a command that waits, then what a script returned that the server ran after it.

        :param wait: the command; where it is refused, its answer is the translated error, and the script runs.
        :param seconds: how long it may wait.
        :param began: called with the number by which the server knows the connection, or 0, just before both are sent;
            if it raises, neither is sent.
        """
        command = ("EVALSHA", script.digest, str(len(keys)), *keys, *arguments)
        waited, answer = await self._exchange([wait, command], seconds, began)
        if isinstance(answer, Refused):
            answer = await self.run(script, keys, arguments)
        return self.translate(waited) if isinstance(waited, Refused) else waited, answer

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
            self._pool.join(self)
            return Line(self, await self._pool.dial(self.target.db, protocol), protocol)

    async def open_push_line(self, protocol: int) -> Line:
        """Return a connection for pushes, of protocol 2 where the server refuses 3; see ``Line.protocol``."""
        if protocol == 3:
            try:
                return await self.open_line(3)
            except self.refused as error:
                if isinstance(error, self.unavailable):
                    raise
            # If protocol 3 was refused, protocol 2 works from now on; any other refusal is raised again here.
        return await self.open_line()

    async def check_door(self) -> None:
        """Make a connection and drop it; raise the error that keeps peers, too, from connecting."""
        async with self.deadline():
            connection = await self._pool.dial(self.target.db)
            try:
                await connection.exchange([("PING",)], self.timeout)
            finally:
                await connection.close()

    async def describe(self) -> str:
        """Connect and return one line that says what answered."""
        version = await self.run(_VERSION, (), ())
        return f"{' '.join(('Redis', version.decode(errors='replace'))).strip()} at {self.target}"

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[asyncio.Timeout]:
        """End the block after ``timeout`` seconds, and translate what a connection raises in it."""
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                yield deadline
        except _TROUBLE as error:
            raise await self._as_owners(error) from as_cause(error)

    def translate(self, error: BaseException) -> CeleriacError:
        """Return the owner's error for a connection's, with what to do about it."""
        text = str(error) or type(error).__name__
        # A login that worked once may work again: a changed password or certificate must not end running tasks.
        kind = self.unavailable if self._pool.was_let_in else self.refused
        if reason := tls_refusal(error):
            return kind(f"{self.target} cannot be connected to: {reason}")
        if isinstance(error, NotRedis):
            return self.refused(f"what answers at {self.target} is no Redis: {text}")
        if isinstance(error, Refused):
            if _LOGIN.search(text):
                return kind(f"{self.target} refused the login ({text}); check user and password in the URL")
            if error.code == "NOPERM":
                return self.refused(f"{self.target}: {text}; give this ACL user the command and the keys")
            if not _PASSING.search(text):
                return self.refused(f"{self.target} refused a command: {text}{_advice(text)}")
        if isinstance(error, NoMaster):
            text = "no sentinel names its master just now"
        if isinstance(error, TimeoutError):
            text = f"no answer within {self.timeout:g} s"
        return self.unavailable(f"{self.target} is not available: {text.rstrip('.')}{next_step(error)}")

    async def _as_owners(self, error: BaseException) -> CeleriacError:
        if isinstance(error, Unfit):
            return self.refused(str(error))
        if isinstance(error, NoMaster):
            return await self._why_no_master(error)
        return self.translate(error)

    async def _why_no_master(self, error: NoMaster) -> CeleriacError:
        """Return the error: an unknown master, or a sentinel that refuses the login, is no passing outage."""
        sentinels = self._pool.sentinels
        answers = () if sentinels is None else await sentinels.ask_each()
        if any(answer and not isinstance(answer, Exception) for answer in answers):
            return self.translate(error)  # they know it, and it is down
        kind = self.unavailable if self._pool.was_let_in else self.refused
        for answer in answers:
            if isinstance(answer, Refused):
                return kind(
                    f"a sentinel of {self.target} refused us ({answer}); check sentinel_username and sentinel_password"
                )
            if isinstance(answer, Exception) and (reason := tls_refusal(answer)):
                return kind(f"a sentinel of {self.target} cannot be connected to: {reason}")
        if any(answer is None for answer in answers):
            return kind(
                f"no sentinel of {self.target} knows a master of this name; check master_name: "
                "SENTINEL MASTERS lists those they know"
            )
        return self.translate(error)

    def check_names(self, names: Sequence[str]) -> None:
        """Do as ``check_name`` for each of them."""
        if not all(map(str.isascii, names)):
            for name in names:
                self.check_name(name)

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
        return self.translate(Refused(text))

    async def close(self) -> None:
        """Close the connections that no other link uses, but for lines. Idempotent."""
        await self._pool.close(self)

    async def _exchange(
        self, commands: Sequence[Sequence[Any]], wait: float = 0.0, began: Callable[[int], None] | None = None
    ) -> list[Any]:
        pool, database = self._pool, self.target.db
        try:
            pool.join(self)
            connection = pool.take(database) or await self._connect()
            try:
                if began is not None:
                    began(connection.number)
                answers = await connection.exchange(commands, self.timeout + wait)
                if not pool.was_let_in or pool.sentinels is not None:
                    self._learn(connection, answers)
            finally:
                pool.give_back(connection, database)
        except _TROUBLE as error:
            raise await self._as_owners(error) from as_cause(error)
        return answers

    async def _connect(self) -> Connection:
        async with asyncio.timeout(self.timeout):
            return await self._pool.dial(self.target.db)

    def _learn(self, connection: Connection, answers: Sequence[Any]) -> None:
        """Note that we were let in, and leave a master that has become a replica."""
        pool = self._pool
        if answers and not pool.was_let_in:
            pool.was_let_in = not isinstance(answers[0], Exception)
        if pool.sentinels is not None and any(
            isinstance(answer, Refused) and "READONLY" in str(answer) for answer in answers
        ):
            connection.cut()


class Line:
    """One connection with a single user; it may be subscribed or tracked.

    :ivar protocol: Redis's, 2 or 3.
    """

    def __init__(self, link: Link, connection: Connection, protocol: int) -> None:
        self.protocol = protocol
        self._link = link
        self._connection = connection

    async def call(self, *command: Any) -> Any:
        """Return the answer to one command. Not for a line that is being read by another task."""
        return _only(await self.calls([command]))

    async def calls(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the answers to several commands; a refused one's answer is the translated error."""
        async with self._link.deadline():
            answers = await self._connection.exchange(commands, self._link.timeout)
        return [self._link.translate(answer) if isinstance(answer, Refused) else answer for answer in answers]

    async def send(self, *command: Any) -> None:
        """Write a command; its answer comes out of ``read``."""
        async with self._link.deadline():
            await self.send_all([command])

    async def send_all(self, commands: Sequence[Sequence[Any]]) -> None:
        """Write commands, without a deadline; their answers are heard by ``listen``, one by one."""
        try:
            await self._connection.write(commands)
        except _TROUBLE as error:
            raise self._link.translate(error) from as_cause(error)

    async def read(self) -> Any:
        """Wait, without end, for what the server sends next."""
        try:
            (news,) = await self._connection.read()
        except _TROUBLE as error:
            raise self._link.translate(error) from as_cause(error)
        if isinstance(news, Refused):
            raise self._link.translate(news)
        return news

    def listen(self, hear: Callable[[bool, Any], None], lost: Callable[[CeleriacError], None]) -> None:
        """Pass on what the server sends from now on.

        :param hear: called with whether it is a push, and what it says: the translated error of a refused command.
        :param lost: called once, when the connection has ended, whoever ended it.
        """
        pushed = list if self.protocol == 2 else PushNotification
        translate = self._link.translate

        def take(news: Any) -> None:
            if isinstance(news, Refused):
                hear(False, translate(news))
            else:
                hear(isinstance(news, pushed), news)

        def end(error: Exception) -> None:
            reason = translate(error)
            reason.__cause__ = as_cause(error)
            lost(reason)

        self._connection.listen(take, end)

    def in_time(self, lost: Callable[[CeleriacError], None]) -> asyncio.TimerHandle:
        """Have ``lost`` called when the link's timeout is over; the timer is to be cancelled before that.

        It costs half of ``Link.deadline``.
        """
        return asyncio.get_running_loop().call_later(
            self._link.timeout, lambda: lost(self._link.translate(TimeoutError()))
        )

    def cut(self) -> None:
        """Close the connection at once. Idempotent."""
        self._connection.cut()

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        await self._connection.close()


def _only(answers: Sequence[Any]) -> Any:
    """Return the only answer, or raise it."""
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


def _is_untaught(answer: Any) -> bool:
    return isinstance(answer, Refused) and answer.code == "NOSCRIPT"


def _is_wrong_type(answer: Any) -> bool:
    return isinstance(answer, Refused) and "WRONGTYPE" in str(answer)


def _advice(text: str) -> str:
    lower = text.lower()
    if "wrongtype" in lower:
        return "; a key of that name holds something else: use another queue name or key prefix"
    if "unknown command" in lower or "unknown redis command" in lower:
        return "; celeriac needs Redis 6.2 or newer, with its commands under their own names"
    if "noperm" in lower or "user executing the script" in lower:
        return "; give this ACL user the command, the key or the channel"
    return ""
