"""The methods that are called here, with names as RabbitMQ takes them.

Rules: pamqp allows only the characters that AMQP 0-9-1 allows in a name; RabbitMQ takes any text of 255 bytes, and
people name their queues so. The check of pamqp is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pamqp import commands
from pamqp.base import Frame


class _AnyName(Frame):
    """Allows every name."""

    def __init_subclass__(cls) -> None:
        # pamqp goes through the slots of the class to write a method.
        cls.__slots__ = next(
            slots for parent in cls.__mro__[1:] if (slots := getattr(parent, "__slots__", None))
        )

    def validate(self) -> None:
        """Leave it to RabbitMQ."""


class _DeclareQueue(_AnyName, commands.Queue.Declare): ...


class _BindQueue(_AnyName, commands.Queue.Bind): ...


class _UnbindQueue(_AnyName, commands.Queue.Unbind): ...


class _PurgeQueue(_AnyName, commands.Queue.Purge): ...


class _DeleteQueue(_AnyName, commands.Queue.Delete): ...


class _DeclareExchange(_AnyName, commands.Exchange.Declare): ...


class _BindExchange(_AnyName, commands.Exchange.Bind): ...


class _Get(_AnyName, commands.Basic.Get): ...


class _Consume(_AnyName, commands.Basic.Consume): ...


def look_for_queue(queue: str) -> Frame:
    """Ask whether a queue is there; the answer has its ``message_count`` and its ``consumer_count``."""
    return _DeclareQueue(queue=queue, passive=True)


def declare_queue(queue: str, arguments: Mapping[str, Any]) -> Frame:
    """Make a durable queue, or compare it with the one that is there."""
    return _DeclareQueue(queue=queue, durable=True, arguments=dict(arguments))


def declare_reply_queue(queue: str, arguments: Mapping[str, Any]) -> Frame:
    """Make a durable queue that goes with its last consumer."""
    return _DeclareQueue(queue=queue, durable=True, auto_delete=True, arguments=dict(arguments))


def declare_own_queue() -> Frame:
    """Make a queue for this connection alone; the answer has its name."""
    return commands.Queue.Declare(exclusive=True, auto_delete=True)


def declare_listening_queue(queue: str, arguments: Mapping[str, Any]) -> Frame:
    """Make a queue of this name for this connection alone, which goes with its last consumer."""
    return _DeclareQueue(queue=queue, exclusive=True, auto_delete=True, arguments=dict(arguments))


def declare_lease(queue: str, milliseconds: int) -> Frame:
    """Make a queue of this name for this connection alone, which goes unless it is declared again in time."""
    return _DeclareQueue(queue=queue, exclusive=True, arguments={"x-expires": milliseconds})


def bind_queue(queue: str, exchange: str, routing_key: str) -> Frame:
    """Let what an exchange gets with this key go to the queue."""
    return _BindQueue(queue=queue, exchange=exchange, routing_key=routing_key)


def unbind_queue(queue: str, exchange: str, routing_key: str) -> Frame:
    """Undo a binding; where there is none, nothing happens."""
    return _UnbindQueue(queue=queue, exchange=exchange, routing_key=routing_key)


def purge_queue(queue: str) -> Frame:
    """Delete the messages of a queue that are ready; the answer has its ``message_count``."""
    return _PurgeQueue(queue=queue)


def delete_queue(queue: str) -> Frame:
    """Delete a queue."""
    return _DeleteQueue(queue=queue)


def look_for_exchange(exchange: str) -> Frame:
    """Ask whether an exchange is there."""
    return _DeclareExchange(exchange=exchange, passive=True)


def declare_exchange(exchange: str, kind: str, *, durable: bool = True) -> Frame:
    """Make an exchange."""
    return _DeclareExchange(exchange=exchange, exchange_type=kind, durable=durable)


def bind_exchange(source: str, destination: str, routing_key: str) -> Frame:
    """Let what an exchange gets with this key go to another."""
    return _BindExchange(destination=destination, source=source, routing_key=routing_key)


def limit_unsettled(count: int) -> Frame:
    """Have at most so many unsettled messages for each consumer that is started from now on."""
    return commands.Basic.Qos(prefetch_count=min(count, 65535))


def consume(
    queue: str, consumer: str, *, no_ack: bool = False, arguments: Mapping[str, Any] | None = None
) -> Frame:
    """Have messages of a queue pushed."""
    return _Consume(queue=queue, consumer_tag=consumer, no_ack=no_ack, arguments=dict(arguments or {}))


def get(queue: str) -> Frame:
    """Have the next message of a queue, if there is one; the answer is that message, or says that it is empty."""
    return _Get(queue=queue)


def cancel(consumer: str) -> Frame:
    """End a consumer."""
    return commands.Basic.Cancel(consumer_tag=consumer)


def confirm_publishes() -> Frame:
    """Have publishes of the channel confirmed."""
    return commands.Confirm.Select()
