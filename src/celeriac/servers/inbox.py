"""The inbox: the messages that a listener has yet to read. Every broker's ``listen`` and ``ask`` return one.

Rules: it holds ``MOST`` messages and drops the oldest, so that a slow reader cannot make memory grow without end.
"""

from __future__ import annotations

import asyncio
from collections import deque

from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.wire.envelope import Envelope, Unreadable

MOST = 10_000
"""Messages that are held for a reader."""

Heard = Envelope | Unreadable


def answers_to(reply_to: ReplyTo) -> Binding:
    """Return what a listener is bound to that gets the answers for an address."""
    return Binding(exchange=Exchange(reply_to.exchange, by_key=True), key=reply_to.key)


class Inbox:
    """An iterator over what is put in.

    :param expect: messages after which it ends; ``None`` for never.
    :ivar dropped: how many were dropped since they were not read in time.
    :ivar cuts: how often the connection was lost.
    :ivar listeners: how many received the question that these messages answer, where they are counted.
    """

    def __init__(self, expect: int | None = None, most: int = MOST) -> None:
        self.listeners: int | None = None
        self.dropped = self.cuts = 0
        self._left = expect
        self._heard: deque[Heard] = deque(maxlen=most)
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def put(self, heard: Heard) -> None:
        """Add what was heard."""
        if len(self._heard) == self._heard.maxlen:
            self.dropped += 1
        self._heard.append(heard)
        self._news.set()

    def expect(self, count: int | None, listeners: int | None) -> None:
        """Let it end after so many answers, by default one of each listener; at once where nobody listens."""
        self.listeners = listeners
        self._left = answers_of(count, listeners)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Raise the error in the reader, after what is there."""
        self._error = error
        self._news.set()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Heard:
        while True:
            if self._left == 0:
                raise StopAsyncIteration
            if self._heard:
                if self._left is not None:
                    self._left -= 1
                return self._heard.popleft()
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()


def answers_of(expect: int | None, listeners: int | None) -> int | None:
    """Return after how many answers ``ask`` ends.

    Where more are expected than listen, one connection may stand for several listeners.
    """
    return listeners if expect is None or listeners == 0 else expect


def hears(binding: Binding, exchange: str, key: str) -> bool:
    """Whether what is published there, with this key, reaches the binding."""
    return binding.exchange.name == exchange and (not binding.exchange.by_key or leads(binding.key, key))


def leads(bound: str, key: str) -> bool:
    """Whether a message with this key reaches a binding with that one."""
    return key.startswith(bound[:-1]) if bound.endswith("#") else key == bound
