"""Answers requests of Celery's remote control: ``celery inspect``, ``celery control``, Flower.

Rules: no bad request can stop the worker or hold it up. A request that cannot be read is dropped, one whose method
raises is answered with the error, one that lasts too long is abandoned, and only a few are worked on at once. Where the
broker refuses to let the worker listen, the log has a warning, remote control is off, and the worker runs on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from celeriac.broker import Binding, Exchange, Fanout, ReplyTo
from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError, EncodeError, WireError
from celeriac.retry import Backoff
from celeriac.settings import Settings
from celeriac.wire.content import Codecs
from celeriac.wire.control import Request, read_request, requests_exchange, write_answer
from celeriac.wire.envelope import Envelope

logger = logging.getLogger("celeriac.worker")

AT_ONCE, WAITING = 4, 1000
"""The most requests that are worked on at once, and the most that wait for their turn; further ones are dropped."""

PATIENCE = 5.0
"""Seconds that a method may take."""

LATE = 10.0
"""Seconds after its expiry at which a request is dropped; until then a clock that differs may be the reason."""

LAST_ANSWERS = 1.0
"""Seconds that the last answers have to go out when the worker ends."""

LARGEST = 1024 * 1024
"""The most bytes of an answer."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

Method = Callable[..., Awaitable[Any]]


class LogicalClock:
    """Counts requests and answers (Lamport's clock, as Celery has it)."""

    def __init__(self) -> None:
        self.value = 1

    def adjust(self, other: int) -> None:
        """Advance to the time after ``other``, if that is ahead."""
        self.value = max(self.value, other) + 1

    def forward(self) -> int:
        """Advance by one and return the time."""
        self.value += 1
        return self.value


class Remote:
    """The remote control of one worker.

    :param node: the worker's name.
    :param methods: the methods by name; each is called with the arguments of the request.
    :param now: seconds since the epoch.
    """

    def __init__(
        self,
        fanout: Fanout,
        node: str,
        settings: Settings,
        methods: Mapping[str, Method],
        codecs: Codecs,
        clock: LogicalClock,
        now: Callable[[], float],
    ) -> None:
        self._fanout = fanout
        self._node = node
        self._exchange = requests_exchange(settings.control_exchange)
        self._serializer = settings.serializer
        self._methods = methods
        self._codecs = codecs
        self._clock = clock
        self._now = now
        self._room = asyncio.Semaphore(AT_ONCE)
        self._requests: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listen and answer until cancelled; survive every outage of the broker."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while True:
                try:
                    await self._listen()
                except BrokerUnavailable as error:
                    logger.debug("requests cannot be heard, and are listened for again: %s", error)
                await asyncio.sleep(backoff.pause())
        except BrokerError as error:
            logger.warning("%s cannot be asked or steered from elsewhere: %s", self._node, error)

    async def finish(self) -> None:
        """Give the requests in hand a moment to be answered; call this after ``run`` was cancelled."""
        if self._requests:
            await asyncio.wait(set(self._requests), timeout=LAST_ANSWERS)
        for request in self._requests:
            request.cancel()

    async def _listen(self) -> None:
        binding = Binding(exchange=Exchange(self._exchange), queue=f"{self._node}.{self._exchange}")
        async with self._fanout.listen([binding]) as heard:
            async for message in heard:
                if isinstance(message, Envelope) and len(self._requests) < WAITING:
                    self._take(message)

    def _take(self, message: Envelope) -> None:
        try:
            request = read_request(message, self._codecs)
        except WireError as error:
            logger.debug("a request cannot be read: %s", error)
            return
        self._clock.adjust(request.clock)
        if request.is_for(self._node) and not 0 < request.expires < self._now() - LATE:
            serving = asyncio.create_task(self._serve(request), name="celeriac-request")
            self._requests.add(serving)
            serving.add_done_callback(self._requests.discard)

    async def _serve(self, request: Request) -> None:
        async with self._room:
            value = await self._value(request)
            if request.reply_to is not None:
                await self._answer(request, ReplyTo(*request.reply_to), value)

    async def _value(self, request: Request) -> Any:
        try:
            method = self._methods[request.method]
            async with asyncio.timeout(PATIENCE):
                return await method(**request.arguments)
        except Exception as error:  # noqa: BLE001 - it is the answer
            logger.debug("request %.100r failed: %r", request.method, error)
            return {"error": repr(error)}

    async def _answer(self, request: Request, reply_to: ReplyTo, value: Any) -> None:
        try:
            content = self._codecs.encode({self._node: value}, self._serializer)
            if len(content.body) > LARGEST:
                raise EncodeError(f"the answer has {len(content.body)} bytes, and {LARGEST} are allowed")
        except EncodeError as error:
            content = self._codecs.encode({self._node: {"error": repr(error)}}, self._serializer)
        try:
            answer = write_answer(content, request.ticket, self._clock.forward())
            await self._fanout.answer(reply_to, answer)
        except CeleriacError as error:
            logger.debug("request %.100r could not be answered: %s", request.method, error)
