"""Fanout inside one process."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.servers.inbox import Inbox, answers_to, hears
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import pack, unpack


class MemoryFanout:
    """Listeners of one memory broker; see ``celeriac.contracts.fanout.Fanout``."""

    def __init__(self) -> None:
        self._listeners: dict[Inbox, Sequence[Binding]] = {}

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int:
        hearing = [
            inbox
            for inbox, bindings in self._listeners.items()
            if any(hears(binding, exchange.name, key) for binding in bindings)
        ]
        if hearing:
            route = Route(key, exchange=exchange.name)
            heard = unpack(pack(envelope, delivery_tag=str(uuid.uuid4()), route=route))
            for inbox in hearing:
                inbox.put(heard)
        return len(hearing)

    @asynccontextmanager
    async def listen(self, bindings: Sequence[Binding]) -> AsyncIterator[Inbox]:
        inbox = Inbox()
        self._listeners[inbox] = tuple(bindings)
        try:
            yield inbox
        finally:
            del self._listeners[inbox]

    async def answer(self, reply_to: ReplyTo, envelope: Envelope, keep: float = 10.0) -> bool:
        return await self.publish(Exchange(reply_to.exchange, by_key=True), envelope, reply_to.key) > 0

    @asynccontextmanager
    async def ask(
        self,
        exchange: Exchange,
        envelope: Envelope,
        reply_to: ReplyTo,
        *,
        key: str = "",
        expect: int | None = None,
    ) -> AsyncIterator[Inbox]:
        async with self.listen([answers_to(reply_to)]) as inbox:
            asked = await self.publish(exchange, envelope, key)
            inbox.expect(expect, asked)
            yield inbox
