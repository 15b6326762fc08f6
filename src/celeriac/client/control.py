"""Asks and steers the workers of a broker: ``app.control`` (Celery: ``app.control``, ``pidbox``).

Rules: a request goes to every worker, those of Celery too, and each decides by the request whether it is meant. An
answer that cannot be read counts as none.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.fanout import Answers, Fanout, ReplyTo
from celeriac.errors import ConfigError, WireError
from celeriac.quantities import SECONDS, require
from celeriac.wire.content import Codecs
from celeriac.wire.control import Request, answers_exchange, read_answers
from celeriac.wire.envelope import Envelope

if TYPE_CHECKING:
    from celeriac.client.connections import RunBlocking
    from celeriac.client.pausing import Pauses
    from celeriac.client.requests import Requests

Matcher = Literal["glob", "pcre"]

TIMEOUT = 1.0
"""Seconds that answers are waited for, as in Celery."""


class Answer(msgspec.Struct, frozen=True):
    """What one worker answered.

    :param node: its name.
    :param value: as in Celery; ``{"error": text}`` where the worker could not do it.
    """

    node: str
    value: Any


class Asked(msgspec.Struct, frozen=True):
    """What became of a question.

    :param answers: in the order they came.
    :param listeners: how many workers heard it, those that were not meant too; ``None`` where the broker cannot count
        them (RabbitMQ).
    :param complete: whether every expected worker answered; ``False`` where the time was up before.
    """

    answers: tuple[Answer, ...]
    listeners: int | None
    complete: bool

    @property
    def by_node(self) -> dict[str, Any]:
        """The values by the name of the worker."""
        return {answer.node: answer.value for answer in self.answers}


class Reach(Protocol):
    """What requests go through, and what is kept with the broker beside them."""

    @property
    def requests(self) -> Requests | None:
        """Publishes requests to all workers; ``None`` where nobody is to be told."""
        ...

    @property
    def pauses(self) -> Pauses:
        """The paused queues."""
        ...


class Reaching(Protocol):
    """Has a reach in each event loop; see ``celeriac.client.connections.ConnectionTable``."""

    def current(self) -> Reach:
        """Return that of the running loop."""
        ...


def _nothing(_: Answer) -> None:
    """Hear nothing."""


class Control:
    """Asks and steers the workers of an app's broker.

    The parameters of its methods:

    :param method: a name of Celery's remote control, such as ``ping``, ``active``, ``add_consumer``.
    :param arguments: those of the method, by name.
    :param destination: the workers that are meant; all, where nothing says which.
    :param pattern: names of workers that are meant: ``celery@web*`` with the matcher ``glob``, the beginning of a
        regular expression with ``pcre``.
    :param timeout: seconds to wait for answers.
    """

    def __init__(
        self, connections: Reaching, namespace: str, codecs: Codecs, clock: Clock, run: RunBlocking
    ) -> None:
        self._connections = connections
        self._answers = answers_exchange(namespace)
        self._codecs = codecs
        self._clock = clock
        self._run = run
        self._times = count(1)

    async def ask(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        destination: Sequence[str] | None = None,
        pattern: str | None = None,
        matcher: Matcher = "glob",
        timeout: float = TIMEOUT,
        hear: Callable[[Answer], None] = _nothing,
    ) -> Asked:
        """Ask workers, and return when all have answered, or the time is up.

        :param hear: is called with each answer when it comes.

        The time is always waited for where it is not known how many will answer: on RabbitMQ without ``destination``,
        and with ``pattern``. Raises ``BrokerUnavailable``, ``EncodeError`` for arguments that the serializer
        cannot carry, and ``ConfigError`` for a broker without remote control.
        """
        require("timeout", timeout, SECONDS)
        reply_to, ticket = ReplyTo(self._answers, str(uuid.uuid4())), str(uuid.uuid4())
        question = self._request(
            method,
            arguments,
            destination,
            pattern,
            matcher,
            reply_to=(reply_to.exchange, reply_to.key),
            ticket=ticket,
            expires=self._clock.now() + timeout,
        )
        expect = None if question.destination is None else len(set(question.destination))
        (fanout, requests), got = self._reach(), list[Answer]()
        message = requests.write(question)

        def hear_one(answer: Answer) -> None:
            got.append(answer)
            hear(answer)

        async with fanout.ask(requests.exchange, message, reply_to, expect=expect) as answers:
            complete = False
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._collect(answers, ticket, hear_one)
                    complete = True
            return Asked(tuple(got), answers.listeners, complete)

    async def tell(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        destination: Sequence[str] | None = None,
        pattern: str | None = None,
        matcher: Matcher = "glob",
    ) -> int | None:
        """Steer workers without an answer; return as ``Asked.listeners``. Raises as ``ask``."""
        request = self._request(method, arguments, destination, pattern, matcher)
        fanout, requests = self._reach()
        return await fanout.publish(requests.exchange, requests.write(request))

    async def pause(self, queue: str) -> list[str]:
        """Let no worker take from a queue until it is resumed, also those that start later; what runs, runs on.

        Return the workers that took from it. Our workers that do not hear of it at once stop within 15 seconds; workers
        of Celery that start later, or do not answer within a second, know nothing of it. Raises as ``ask``.
        """
        return await self._connections.current().pauses.pause(self, queue)

    async def resume(self, queue: str) -> None:
        """Let workers take from a queue again. Raises as ``ask``."""
        await self._connections.current().pauses.resume(self, queue)

    async def paused(self) -> frozenset[str]:
        """Return the paused queues. Raises ``BrokerUnavailable``."""
        return await self._connections.current().pauses.load()

    def broadcast(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        destination: Sequence[str] | None = None,
        pattern: str | None = None,
        matcher: Matcher = "glob",
        timeout: float = TIMEOUT,
    ) -> Asked:
        """Do as ``ask`` for code without an event loop."""
        return self._run(
            self.ask(
                method, arguments, destination=destination, pattern=pattern, matcher=matcher, timeout=timeout
            )
        )

    def _request(
        self,
        method: str,
        arguments: Mapping[str, Any] | None,
        destination: Sequence[str] | None,
        pattern: str | None,
        matcher: Matcher,
        **answering: Any,
    ) -> Request:
        if isinstance(destination, str):
            raise ConfigError(f"destination={destination!r}: give a list of names, such as [{destination!r}]")
        return Request(
            method=method,
            arguments=dict(arguments or {}),
            destination=None if destination is None else tuple(destination),
            pattern=pattern,
            matcher=matcher if pattern else None,
            clock=next(self._times),
            **answering,
        )

    def _reach(self) -> tuple[Fanout, Requests]:
        requests = self._connections.current().requests
        if requests is None or requests.fanout is None:
            raise ConfigError("this broker cannot send a message to all workers, so they cannot be asked")
        return requests.fanout, requests

    async def _collect(self, answers: Answers, ticket: str, hear: Callable[[Answer], None]) -> None:
        async for message in answers:
            with suppress(WireError):
                if isinstance(message, Envelope):
                    of, values = read_answers(message, self._codecs)
                    if of == ticket:
                        for node, value in values.items():
                            hear(Answer(node, value))
