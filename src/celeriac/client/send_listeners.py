"""Tells listeners what an app sends, before it is sent and after; they may add headers.

Rules: where nobody listens, sending costs no more. A listener that raises is logged once, and the messages go out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from celeriac.wire.envelope import Route
from celeriac.wire.task import TaskMessage

if TYPE_CHECKING:
    from celeriac.schedule.slots import Schedule

logger = logging.getLogger(__name__)

Done: TypeAlias = Callable[[BaseException | None], None]
"""Called when the broker has the messages, or with the error by which it has not."""


class Outgoing:
    """A message that is about to be sent.

    :ivar message: the task message; its body is not encoded yet.
    :ivar queue: the queue, or the routing key where an exchange is named.
    :ivar exchange: where it goes, with ``routing_key``; ``""`` is the default exchange.
    :ivar headers: headers to add to the message; a name of the protocol is refused when it is encoded.
    :ivar follows: whether it follows from a task, as a retry or the next step of a chain does.
    """

    __slots__ = ("exchange", "follows", "headers", "message", "queue", "routing_key")

    def __init__(self, message: TaskMessage, to: Route, *, follows: bool) -> None:
        self.message = message
        self.queue = to.queue or to.routing_key
        self.exchange = to.exchange
        self.routing_key = to.routing_key
        self.follows = follows
        self.headers: dict[str, Any] = {}


class Tick(msgspec.Struct, frozen=True):
    """A slot of a periodic task.

    :param entry: the name of the periodic task, and ``task`` that of the task which it runs.
    :param run: the id of the slot's run, the same in every process.
    :param slot: seconds since the epoch.
    """

    entry: str
    task: str
    run: str
    slot: float
    schedule: Schedule


class SendListener:
    """Hears what an app sends; nothing here may block.

    It is called in the event loop that sends, also for the calls of code without a loop.
    """

    def sending(self, batch: Sequence[Outgoing]) -> Done | None:
        """Messages of one call are about to be sent; return what to call when they are sent.

        What follows from a task is published with the task's result, so its ``Done`` is called as soon as the messages
        are encoded.
        """

    def ticking(self, tick: Tick) -> Mapping[str, Any] | None:
        """The message of a slot is about to be made; return headers that it is to have."""

    def ticked(self, tick: Tick) -> None:
        """The slot was sent, by this process; of several that try only one is told."""


class SendListeners:
    """The listeners of an app's sending, in the order in which they were given."""

    def __init__(self) -> None:
        self._listeners: list[SendListener] = []
        self._told_of: set[SendListener] = set()

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: SendListener) -> None:
        """Tell this one too, from now on."""
        self._listeners.append(listener)

    def sending(self, batch: Sequence[Outgoing]) -> Done:
        """Call every listener; return the function to be called at the end."""
        waiting: list[tuple[SendListener, Done]] = []
        for listener in self._listeners:
            try:
                if (done := listener.sending(batch)) is not None:
                    waiting.append((listener, done))
            except Exception as error:  # noqa: BLE001 - the messages go out all the same
                self._complain(listener, error)

        def tell(error: BaseException | None) -> None:
            for listener, done in reversed(waiting):
                try:
                    done(error)
                except Exception as fault:  # noqa: BLE001 - as above
                    self._complain(listener, fault)

        return tell

    def ticking(self, tick: Tick) -> dict[str, Any]:
        """Call every listener for a slot that is about to be sent; return the headers that they add."""
        headers: dict[str, Any] = {}
        for listener in self._listeners:
            try:
                headers |= listener.ticking(tick) or {}
            except Exception as error:  # noqa: BLE001 - the message goes out all the same
                self._complain(listener, error)
        return headers

    def ticked(self, tick: Tick) -> None:
        """Call every listener after the slot was sent."""
        for listener in self._listeners:
            try:
                listener.ticked(tick)
            except Exception as error:  # noqa: BLE001 - it was sent
                self._complain(listener, error)

    def _complain(self, listener: SendListener, error: Exception) -> None:
        if listener not in self._told_of:
            self._told_of.add(listener)
            logger.error(
                "listener %s failed; further failures of it are not logged", listener, exc_info=error
            )
