"""The messages of one memory broker: waiting in a queue, held by a receipt, parked or dead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.broker import Parked, QueueState, Survey
from celeriac.contracts.set_aside import DeadLetter, Failed
from celeriac.errors import DeliveryLost
from celeriac.servers.memory.failed import MemoryFailed
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.frame import mark_redelivered, unpack


class Message(msgspec.Struct, order=True, eq=True):
    """One message; the first two fields are its place in the line."""

    priority: int
    serial: int
    queue: str
    raw: bytes
    redelivered: bool = False


class Dead(msgspec.Struct):
    """A dead letter; ``died_at`` is seconds since the epoch."""

    message: Message
    reason: str
    died_at: float


class Waiting(msgspec.Struct):
    """A parked message and what wakes it."""

    message: Message
    due: float
    timer: asyncio.TimerHandle


class Lines:
    """Where every message is: waiting in a queue, held by a receipt, parked or dead."""

    def __init__(self, clock: Clock, failed: MemoryFailed) -> None:
        self._clock = clock
        self._failed = failed
        self._serials = count(1)
        self._held: dict[int, Message] = {}
        self.parked: dict[int, Waiting] = {}
        self.waiting: dict[str, list[Message]] = {}
        self.dead: dict[str, Dead] = {}
        self.changed: set[asyncio.Event] = set()

    def next_serial(self) -> int:
        return next(self._serials)

    def declare(self, queue: str) -> list[Message]:
        return self.waiting.setdefault(queue, [])

    def add(self, message: Message, due: float | None) -> None:
        """Queue the message, or park it when its time is yet to come."""
        delay = 0.0 if due is None else due - self._clock.now()
        if due is None or delay <= 0:
            self.enqueue(message)
            return
        self.declare(message.queue)
        timer = asyncio.get_running_loop().call_later(delay, self._come_due, message.serial)
        self.parked[message.serial] = Waiting(message, due, timer)

    def enqueue(self, message: Message) -> None:
        heappush(self.declare(message.queue), message)
        for event in self.changed:
            event.set()

    def take(self, queues: deque[str], limit: int) -> list[Message]:
        """Take by priority over all the queues; among equals the queues take turns."""
        taken: list[Message] = []
        while len(taken) < limit:
            ready = [queue for queue in queues if self.waiting[queue]]
            if not ready:
                break
            queue = min(ready, key=lambda name: self.waiting[name][0].priority)
            queues.remove(queue)
            queues.append(queue)
            taken.append(heappop(self.waiting[queue]))
        self._held.update((message.serial, message) for message in taken)
        return taken

    def settle(self, message: Message) -> None:
        if self._held.pop(message.serial, None) is not message:
            raise lost(message)

    def give_back(self, message: Message) -> None:
        self.settle(message)
        self.enqueue(msgspec.structs.replace(message, redelivered=True))

    def park(self, message: Message, due: float) -> None:
        self.settle(message)
        self.add(message, due)

    def survey(self, queues: Sequence[str], failed: int) -> Survey:
        """Return how many messages there are, and the next of each queue."""
        lines = {queue: self.waiting.get(queue, []) for queue in queues}
        states = [
            QueueState(queue, len(line), [read(one) for one in line[:1]]) for queue, line in lines.items()
        ]
        return Survey(states, len(self.parked), len(self._held), len(self.dead), failed)

    def unpark(self, serial: int) -> bool:
        """Forget a parked message; return whether there was one."""
        waiting = self.parked.pop(serial, None)
        if waiting is not None:
            waiting.timer.cancel()
        return waiting is not None

    def bury(self, message: Message, reason: str) -> None:
        self.settle(message)
        self.dead[str(message.serial)] = Dead(message, reason, self._clock.now())

    def fail(self, message: Message, failed: Failed) -> None:
        self.settle(message)
        self._failed.keep(failed, message.raw, message.queue)

    def recall(self) -> None:
        """Put what is held or parked back into its queue."""
        for message in list(self._held.values()):
            self.give_back(message)
        for serial, waiting in list(self.parked.items()):
            waiting.timer.cancel()
            self._come_due(serial)

    def _come_due(self, serial: int) -> None:
        self.enqueue(self.parked.pop(serial).message)


def read(message: Message) -> Envelope | Unreadable:
    """Return what the message says."""
    return unpack(mark_redelivered(message.raw) if message.redelivered else message.raw)


def dead_letter(name: str, dead: Dead) -> DeadLetter:
    """Return a dead letter as the contract has it."""
    message = dead.message
    return DeadLetter(
        id=name, envelope=read(message), queue=message.queue, reason=dead.reason, died_at=dead.died_at
    )


def parked_of(waiting: Waiting) -> Parked:
    """Return a parked message as the contract has it."""
    message = waiting.message
    return Parked(id=str(message.serial), envelope=read(message), queue=message.queue, due=waiting.due)


def lost(message: Message) -> DeliveryLost:
    """Return the error for a receipt that is void."""
    return DeliveryLost(f"message {message.serial} of queue {message.queue!r} was settled before")
