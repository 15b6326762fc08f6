"""The contract of fanout: messages to every listener of an exchange, questions, and answers to one address.

Rules: a message reaches the listeners that are bound at that moment, and is kept for nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from celeriac.wire.envelope import Envelope, Unreadable


class Exchange(msgspec.Struct, frozen=True):
    """An exchange that sends a copy of each message to every listener, and keeps nothing for later ones.

    :param by_key: listeners choose by the keys of their bindings (AMQP: a durable ``topic`` exchange, such as Celery's
        ``celeryev``); else each gets everything (a ``fanout`` exchange, such as ``celery.pidbox``).
    """

    name: str
    by_key: bool = False


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """The messages that a listener gets from one exchange.

    :param key: the routing key of the messages; one that ends in ``#`` stands for every key that begins so.
    :param queue: the name of the listener's queue on RabbitMQ; no other listener may use it at the same time.
    :param message_ttl: seconds that RabbitMQ keeps a message for a listener that does not take it.
    :param expires: seconds that RabbitMQ keeps the queue while no listener takes from it.
    """

    exchange: Exchange
    key: str = ""
    queue: str = ""
    message_ttl: float = 300.0
    expires: float = 10.0


class ReplyTo(msgspec.Struct, frozen=True):
    """Where the answers to a question go: to the queue ``<key>.<exchange>``, as kombu names it.

    :param exchange: of the answers, such as ``reply.celery.pidbox``.
    :param key: the asker's routing key, which is unique.
    """

    exchange: str
    key: str

    @property
    def queue(self) -> str:
        """The queue of the asker."""
        return f"{self.key}.{self.exchange}"


class Listening(Protocol):
    """The messages that a listener gets, as they come; an asynchronous iterator.

    :ivar dropped: how many came and were dropped since they were not read in time.
    :ivar cuts: how often the connection was lost; what was published meanwhile is lost, too.
    """

    dropped: int
    cuts: int

    def __aiter__(self) -> AsyncIterator[Envelope | Unreadable]: ...

    async def __anext__(self) -> Envelope | Unreadable: ...


class Answers(Protocol):
    """The answers to a question, as they come.

    :ivar listeners: how many received the question; ``None`` where the broker cannot count them.
    """

    listeners: int | None

    def __aiter__(self) -> AsyncIterator[Envelope | Unreadable]: ...

    async def __anext__(self) -> Envelope | Unreadable: ...


class Fanout(Protocol):
    """Sends messages to all listeners, and asks them for answers (kombu: fanout exchanges, ``pidbox``).

    Messages of one publisher come in the order they were published. Every method raises ``BrokerUnavailable`` when the
    broker is away, and ``BrokerError`` when it refuses.
    """

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int | None:
        """Send to every present listener; return their number, or ``None`` where there are some, uncounted.

        A listener that died without leaving counts until its lease ends. Without listeners nothing is sent.
        """
        ...

    def listen(self, bindings: Sequence[Binding]) -> AbstractAsyncContextManager[Listening]:
        """Hear, within the block, what is published to any of the bindings.

        Entering returns when everything published from then on is heard. A connection that is cut is made anew by
        itself; what is published meanwhile is lost, as is the oldest of what is not read in time. The iterator raises
        ``BrokerError`` when the broker refuses to let it listen again.
        """
        ...

    async def answer(self, reply_to: ReplyTo, envelope: Envelope, keep: float = 10.0) -> bool:
        """Send to the asker, if it still listens; return whether it does.

        :param keep: seconds after which an answer that was not fetched is dropped.
        """
        ...

    def ask(
        self,
        exchange: Exchange,
        envelope: Envelope,
        reply_to: ReplyTo,
        *,
        key: str = "",
        expect: int | None = None,
    ) -> AbstractAsyncContextManager[Answers]:
        """Publish, and within the block receive the answers as they come; set the deadline around it.

        :param reply_to: the address for answers that the message carries.
        :param expect: the number of answers after which the iterator ends. The default is the number of listeners; if
            the broker cannot count those, the iterator does not end. Where nobody listens it ends at once.
        """
        ...


@runtime_checkable
class KnowsListeners(Protocol):
    """A fanout that hears of listeners that come; an optional ability.

    There a message to nobody costs the server a question, so what is sent again and again can be left out.
    """

    def is_deserted(self, exchange: Exchange, key: str) -> bool:
        """Whether the last message there had no listener, and none is known to have come since.

        One that came a moment ago may not be known yet.
        """
        ...
