"""One channel: calls and their answers, messages that come in.

Rules: answers come in the order of the calls, so calls may overlap. After the channel was closed, by either side, every
call raises why. Handlers run while the socket is read, and must not block. A handler that raises loses the message that
it was given; the connection and its other channels go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pamqp import commands
from pamqp.base import Frame

from celeriac.servers.rabbitmq.protocol import frames
from celeriac.servers.rabbitmq.protocol.content import body_size
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Unavailable, of_reply
from celeriac.servers.rabbitmq.protocol.frames import Inbound

_log = logging.getLogger("celeriac.rabbitmq")


class Wire(Protocol):
    """What a channel needs of its connection."""

    frame_max: int
    blocked: str | None

    def write(self, data: bytes) -> None:
        """Send bytes, in order; a few that are written in one turn of the loop go together."""
        ...

    def forget(self, number: int) -> None:
        """The channel is over."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether the socket takes more."""
        ...

    async def writable(self) -> None:
        """Wait while the socket cannot take more."""
        ...

    def last_progress(self) -> float:
        """Return the time of the loop at which bytes were last seen to leave while others waited to."""
        ...


class Channel:
    """A channel that is open or was.

    ``on_message`` gets what consumers are delivered; ``on_return`` what could not be routed; ``on_confirm`` the
    number of a publish, ``multiple`` and whether it was taken; ``on_cancelled`` the name of a consumer that ended;
    ``on_closed`` is called once.

    :ivar answered_at: the time of the loop at which the last answer to a method came.
    """

    def __init__(self, wire: Wire, number: int) -> None:
        self.wire = wire
        self.number = number
        self.error: AmqpError | None = None
        self.answered_at = -math.inf
        self.on_message: Callable[[Inbound], None] = _ignore
        self.on_return: Callable[[Inbound, str], None] = _ignore
        self.on_confirm: Callable[[int, bool, bool], None] = _ignore
        self.on_cancelled: Callable[[str], None] = _ignore
        self.on_closed: Callable[[AmqpError], None] = _ignore
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._arriving: Inbound | None = None
        self._complete: Callable[[Inbound], None] = _ignore
        self._missing = 0
        self._parts: list[bytes] = []
        self._closing = False

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self.error is None and not self._closing

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or was, because it is not needed any more."""
        return self._closing

    def start(self, frame: Frame) -> asyncio.Future[Any]:
        """Send a method; the future has its answer."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_open:
            future.set_exception(self._unusable())
            return future
        data = frames.method(frame, self.number)
        self._answers.append(future)
        self.wire.write(data)
        return future

    async def call(self, frame: Frame) -> Any:
        """Send a method and return its answer. Raises ``Refused`` or ``Unavailable``."""
        return await self.start(frame)

    def send(self, data: bytes) -> None:
        """Send frames that have no answer. Raises what closed the channel."""
        if self.error is not None or self._closing:
            raise self._unusable()
        self.wire.write(data)

    async def close(self) -> None:
        """Close it; the server has dealt with everything sent before when this returns. Idempotent."""
        if self.is_open:
            answer = self.start_closing()
            with contextlib.suppress(AmqpError):
                await answer

    def start_closing(self) -> asyncio.Future[Any]:
        """Have it closed; the future ends when it is."""
        answer = self.start(commands.Channel.Close(200, "done", 0, 0))
        self._closing = True
        answer.add_done_callback(self._closed)
        return answer

    def _unusable(self) -> AmqpError:
        """Return why nothing may be sent.

        A frame that follows our own close would reach a number that is free, for which the server ends the connection.
        """
        return self.error or Unavailable("the channel is being closed")

    def give_up(self, reason: str) -> None:
        """Close it because it is of no use any more."""
        if self.is_open:
            self.start_closing()
            self.fail(Unavailable(reason))

    def _closed(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self.wire.forget(self.number)
            self.fail(Unavailable("the channel was closed"))

    def fail(self, error: AmqpError) -> None:
        """Note that the channel is over and why. Idempotent."""
        if self.error is not None:
            return
        self.error = error
        answers, self._answers = self._answers, deque()
        for answer in answers:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # the caller may have gone
        self.on_closed(error)

    # --- what the connection reads

    def take_method(self, payload: bytes) -> None:
        """Take the payload of a method frame."""
        kind = payload[:4]
        if kind == frames.DELIVER:
            self._arriving = frames.read_deliver(payload)
            self._complete = self.on_message
        elif kind == frames.CONFIRMED:
            self.on_confirm(*frames.read_confirmed(payload), True)
        elif kind == frames.GOT:
            self._arriving = frames.read_got(payload)
            self._complete = self._answer
        elif kind == frames.RETURNED:
            self._arriving, reason = frames.read_returned(payload)
            self._complete = lambda message: self.on_return(message, reason)
        elif kind == frames.CHANNEL_CLOSE:
            self._closed_by_server(*frames.read_close(payload))
        else:
            self._dispatch(frames.read_method(self.number, payload))

    def take_header(self, payload: bytes) -> None:
        """Take the payload of a content header: that of the message which the method before it announced."""
        arriving = self._arriving
        if arriving is None:
            return
        arriving.header = payload
        self._missing = body_size(payload)
        if not self._missing:
            self._hand_over(arriving)

    def take_body(self, payload: bytes) -> None:
        """Take a piece of that message's body."""
        arriving = self._arriving
        if arriving is None:
            return
        self._missing -= len(payload)
        if self._missing > 0:
            self._parts.append(payload)
            return
        if self._parts:
            self._parts.append(payload)
            payload = b"".join(self._parts)
            self._parts = []
        arriving.body = payload
        self._hand_over(arriving)

    def _hand_over(self, message: Inbound) -> None:
        self._arriving = None
        try:
            self._complete(message)
        except Exception:  # noqa: BLE001 - see above
            _log.exception(
                "a message with the routing key %r could not be taken, and stays with the server",
                message.routing_key,
            )

    def _closed_by_server(self, code: int, text: str) -> None:
        self.wire.write(frames.method(commands.Channel.CloseOk(), self.number))
        self.wire.forget(self.number)
        self.fail(of_reply(code, text))

    def _dispatch(self, frame: Any) -> None:
        match frame:
            case commands.Basic.Nack():
                self.on_confirm(frame.delivery_tag or 0, bool(frame.multiple), False)
            case commands.Basic.Cancel():
                self.on_cancelled(frame.consumer_tag or "")
            case commands.Channel.Flow():
                self.wire.write(
                    frames.method(commands.Channel.FlowOk(active=bool(frame.active)), self.number)
                )
            case _:
                self._answer(frame)

    def _answer(self, answer: Any) -> None:
        if self._answers:
            future = self._answers.popleft()
            self.answered_at = asyncio.get_running_loop().time()
            if not future.done():
                future.set_result(answer)


TAKES: Mapping[int, Callable[[Channel, bytes], None]] = {
    frames.METHOD: Channel.take_method,
    frames.HEADER: Channel.take_header,
    frames.BODY: Channel.take_body,
}
"""How a channel takes the payload of a frame, by the type of the frame."""


def _ignore(*_: Any) -> None:
    return
