"""A message that RabbitMQ pushed to a consumer, and that arrives after the answer to the consumer's end."""

import asyncio
from collections.abc import Callable

from celeriac.servers.rabbitmq.protocol.frames import BODY, DELIVER, HEAD, HEAD_SIZE, METHOD
from celeriac.testing.steps import publish_numbers, take_all
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer

CANCEL_OK = b"\x00\x3c\x00\x1f"
"""Class ``basic`` (60), method ``cancel-ok`` (31)."""


class LateLine(Proxy):
    """A line, of one connection, on which the end of a consumer overtakes a push, as it does in RabbitMQ at times.

    From ``begin`` on, the next push waits here, and what follows the end of a consumer comes after it.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.pushed, self.ended = asyncio.Event(), asyncio.Event()
        self._holding = False
        self._channel = 0
        self._push: list[bytes] = []
        self._rest: list[bytes] = []

    def begin(self) -> None:
        self._holding = True

    def release(self) -> None:
        self._holding = False
        (client,) = self._pairs
        client.write(b"".join(self._push + self._rest))

    def rewriter(self) -> Callable[[bytes], bytes]:
        unread = b""

        def rewrite(data: bytes) -> bytes:
            nonlocal unread
            unread, out = unread + data, []
            while len(unread) >= HEAD_SIZE:
                kind, channel, size = HEAD.unpack_from(unread)
                end = HEAD_SIZE + size + 1
                if len(unread) < end:
                    break
                frame, unread = unread[:end], unread[end:]
                place = self._place_of(kind, channel, frame[HEAD_SIZE : HEAD_SIZE + 4])
                (out if place is None else place).append(frame)
                if place is self._push and kind == BODY:
                    self._channel = 0
                    self.pushed.set()
            return b"".join(out)

        return rewrite

    def _place_of(self, kind: int, channel: int, method: bytes) -> list[bytes] | None:
        """Where a frame waits, if it does."""
        if not self._holding:
            return None
        if self.ended.is_set():
            return self._rest
        if kind == METHOD and method == DELIVER and not self._push:
            self._channel = channel
        if kind == METHOD and method == CANCEL_OK:
            self.ended.set()
        return self._push if channel == self._channel else None


async def test_it_is_taken_in_its_turn(rabbit_server: RabbitServer, make_broker: MakeBroker, queue: str):
    async with LateLine(rabbit_server.port) as line:
        broker = make_broker(line.url())
        await publish_numbers(broker, queue, range(4))
        async with broker.subscribe([queue]) as subscription:
            first = await take_all(subscription, 1)
            line.begin()
            await first[0].receipt.ack()
            await line.pushed.wait()
            taking = asyncio.create_task(
                take_all(subscription, 3)
            )  # with more room, which takes another consumer
            await line.ended.wait()
            assert subscription._unsettled is not None
            channel = subscription._unsettled.channel
            before = channel.answered_at
            while channel.answered_at == before:  # noqa: ASYNC110 - nobody is told of an answer but who asked
                await asyncio.sleep(0)
            for _ in range(3):  # who asked goes on
                await asyncio.sleep(0)
            line.release()
            taken = await taking
            assert [delivery.redelivered for delivery in taken] == [False] * 3
            bodies = [delivery.envelope.body for delivery in taken]  # type: ignore[union-attr]
            assert bodies == sorted(bodies)
            for delivery in taken:
                await delivery.receipt.ack()
