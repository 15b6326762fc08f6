"""Answers requests of Celery's remote control: ``celery inspect``, ``celery control``, Flower.

Rules: no bad request can stop the worker or hold it up. A request that cannot be read is dropped, one whose method
raises is answered with the error, one that lasts too long is abandoned, and only a few are worked on at once. Where the
broker refuses to let the worker listen, the log has a warning, remote control is off, and the worker runs on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NoReturn

from celeriac.contracts.fanout import Binding, Exchange, Fanout, ReplyTo
from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError, EncodeError, WireError
from celeriac.retry import Backoff
from celeriac.settings import Settings
from celeriac.wire.content import Codecs, Content
from celeriac.wire.control import Request, read_request, requests_exchange, write_answer
from celeriac.wire.envelope import Envelope
from celeriac.worker.elections import Elections
from celeriac.worker.logical_clock import LogicalClock

logger = logging.getLogger("celeriac.worker")

AT_ONCE, WAITING = 4, 1000
"""The most requests that are worked on at once, and the most that wait for their turn; further ones are dropped."""

PATIENCE = 5.0
"""Seconds that a method may take."""

LATE = 10.0
"""Seconds after its expiry at which a request is dropped; until then a clock that differs may be the reason."""

LAST_ANSWERS = 1.0
"""Seconds that the last answers have to go out when the worker ends."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

Method = Callable[..., Awaitable[Any]]


class AnswerTally:
    """Counts answers.

    :ivar cut: entries of lists that were left out, because an answer was too large.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.cut = 0


class Remote:
    """The remote control of one worker.

    :param node: the worker's name.
    :param methods: the methods by name; each is called with the arguments of the request.
    :param elections: acknowledges the candidates of elections.
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
        tally: AnswerTally,
        elections: Elections,
        now: Callable[[], float],
    ) -> None:
        self._fanout = fanout
        self._node = node
        self._exchange = requests_exchange(settings.control_exchange)
        self._serializer = settings.serializer
        self._methods = methods
        self._codecs = codecs
        self._clock = clock
        self._tally = tally
        self._elections = elections
        self._largest = settings.control_reply_limit
        self._now = now
        self._room = asyncio.Semaphore(AT_ONCE)
        self._requests: set[asyncio.Task[None]] = set()
        self._tried = asyncio.Event()

    async def run(self) -> None:
        """Listen and answer until cancelled; survive every outage of the broker."""
        requests = Binding(exchange=Exchange(self._exchange), queue=f"{self._node}.{self._exchange}")
        try:
            await self._listen_again_and_again([requests, self._elections.binding])
        except BrokerError as error:
            logger.debug("elections are not heard: %s", error)
        try:
            await self._listen_again_and_again([requests])
        except BrokerError as error:
            logger.warning("%s cannot be asked or steered from elsewhere: %s", self._node, error)
        finally:
            self._tried.set()

    async def ready(self) -> None:
        """Return when requests are heard, or it is known that they will not be."""
        await self._tried.wait()

    async def finish(self) -> None:
        """Give the requests in hand a moment to be answered; call this after ``run`` was cancelled."""
        if self._requests:
            await asyncio.wait(set(self._requests), timeout=LAST_ANSWERS)
        for request in self._requests:
            request.cancel()

    async def _listen_again_and_again(self, bindings: Sequence[Binding]) -> NoReturn:
        """Listen until cancelled, through every outage. Raises ``BrokerError`` where the broker refuses."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                await self._listen(bindings)
            except BrokerUnavailable as error:
                logger.debug("requests cannot be heard, and are listened for again: %s", error)
            await asyncio.sleep(backoff.pause())

    async def _listen(self, bindings: Sequence[Binding]) -> None:
        async with self._fanout.listen(bindings) as heard:
            self._tried.set()
            async for message in heard:
                if not isinstance(message, Envelope) or len(self._requests) >= WAITING:
                    continue
                if message.exchange == self._elections.exchange.name:
                    self._begin(self._elections.acknowledge(message))
                    continue
                try:
                    self._take(message)
                except Exception:
                    logger.exception("a request was dropped")

    def _take(self, message: Envelope) -> None:
        try:
            request = read_request(message, self._codecs)
        except WireError as error:
            logger.debug("a request cannot be read: %s", error)
            return
        self._clock.adjust(request.clock)
        if request.is_for(self._node) and not 0 < request.expires < self._now() - LATE:
            self._begin(self._serve(request))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        serving = asyncio.create_task(work, name="celeriac-request")
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
        answer = write_answer(self._content(value), request.ticket, self._clock.forward())
        try:
            await self._fanout.answer(reply_to, answer)
            self._tally.answered += 1
        except CeleriacError as error:
            logger.debug("request %.100r could not be answered: %s", request.method, error)

    def _content(self, value: Any) -> Content:
        """Return the answer with this value; a list that is too large loses its later half, again and again."""
        try:
            content = self._codecs.encode({self._node: value}, self._serializer)
            while len(content.body) > self._largest:
                if not isinstance(value, list) or len(value) < 2:
                    size = len(content.body)
                    raise EncodeError(f"the answer has {size} bytes, and {self._largest} are allowed")
                kept = value[: len(value) // 2]
                self._tally.cut += len(value) - len(kept)
                value = kept
                content = self._codecs.encode({self._node: value}, self._serializer)
        except EncodeError as error:
            return self._codecs.encode({self._node: {"error": repr(error)}}, self._serializer)
        return content
