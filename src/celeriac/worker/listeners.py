"""Tells listeners what a worker does: the log, the tally, and the listeners of the app.

Rules: a listener is called for the events whose method it overrides, and an event that no listener overrides costs no
call. A listener that raises is logged once, and changes nothing for the task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

from celeriac.wire.result import ResultRecord
from celeriac.worker.attempt import Attempt
from celeriac.worker.decision import Kind
from celeriac.worker.signals import Stop

logger = logging.getLogger("celeriac.worker")


class EventCounts(Protocol):
    """How many events a worker has sent."""

    @property
    def sent(self) -> int:
        """Those that reached a monitor."""
        ...

    @property
    def dropped(self) -> int:
        """Those that were dropped."""
        ...


class Made(Protocol):
    """What a listener may ask of its worker."""

    @property
    def name(self) -> str:
        """The node name."""
        ...

    @property
    def concurrency(self) -> int:
        """How many tasks it runs at once."""
        ...

    @property
    def queues(self) -> Sequence[str]:
        """The queues that it takes from."""
        ...

    def take_from(self, queues: Sequence[str]) -> None:
        """Take from these queues instead; to be called before it connects."""
        ...

    @property
    def pool(self) -> str:
        """The name of its pool."""
        ...

    @property
    def stopped_by(self) -> Stop | None:
        """What ended it; ``None`` where that was no signal."""
        ...

    @property
    def events(self) -> EventCounts | None:
        """Its events; ``None`` where it sends none."""
        ...


AroundBody: TypeAlias = Callable[[Mapping[str, str]], AbstractContextManager[Any]]


class Listener:
    """Hears what becomes of messages and of the worker. Override what you want to hear; nothing here may block.

    All methods are called on the worker's event loop. ``attempt.message`` is the task message, ``attempt.queue`` where
    it came from, ``attempt.decision`` what was done about it.
    """

    @staticmethod
    def around_body(carried: Mapping[str, str]) -> AbstractContextManager[Any]:
        """Return what is entered around a body that runs in a process of the pool; it is called there.

        :param carried: ``attempt.context.carried`` as ``started`` has left it. Nothing is called where it is empty.
        """
        return nullcontext()

    def received(self, attempt: Attempt) -> None:
        """A message was taken and read; a verdict is yet to come."""

    def started(self, attempt: Attempt) -> None:
        """The body is about to run."""

    def reported(self, record: ResultRecord) -> None:
        """A running task reported how far it is, or another state: ``record.status``, with ``record.result``."""

    def soft_limit_passed(self, attempt: Attempt, seconds: float) -> None:
        """The soft time limit of a running body is over; the body is told by an exception, which it may catch."""

    def ended(self, attempt: Attempt) -> None:
        """The body ended, and all that follows from it has landed; the state is ``attempt.decision.state``."""

    def parked(self, attempt: Attempt) -> None:
        """The message went back to the broker until its ETA."""

    def declined(self, attempt: Attempt) -> None:
        """The message did not run: expired, revoked, or a second copy; ``attempt.decision.reason`` says which."""

    def refused(self, attempt: Attempt) -> None:
        """The message cannot run here and went to the dead letters; ``attempt.decision.error`` says why."""

    def failed(self, attempt: Attempt, error: Exception) -> None:
        """The worker itself failed on a message, outside of its body."""

    def lost(self, attempt: Attempt, error: Exception) -> None:
        """The receipt was void when the message was to be settled: another worker has it."""

    def worker_made(self, worker: Made) -> None:
        """A worker was made that will tell this listener what it does."""

    def worker_starting(self, node: str) -> None:
        """The worker connects."""

    def worker_ready(self, node: str) -> None:
        """The worker holds its queues."""

    def worker_reconnected(self, node: str) -> None:
        """The worker takes messages again, after an outage of its broker."""

    def heartbeat(self, node: str) -> None:
        """The worker told monitors that it lives, as every 2 seconds; not while its broker is away."""

    def child_started(self, node: str, pid: int) -> None:
        """A process of the pool was started."""

    def child_stopped(self, node: str, pid: int) -> None:
        """A process of the pool has ended, by itself or killed."""

    def worker_stopping(self, node: str) -> None:
        """The worker takes no more messages."""

    def worker_hurrying(self, node: str, seconds: float) -> None:
        """A second signal came, or one that gives running tasks no time but these seconds."""

    def worker_stopped(self, node: str) -> None:
        """The worker has settled or given back all its messages."""


Telling = Callable[..., None]


class Listeners:
    """Tells an ordered list of listeners; each attribute calls the method of ``Listener`` of that name."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.received: Callable[[Attempt], None] = _chain(listeners, "received")
        self.started: Callable[[Attempt], None] = _chain(listeners, "started")
        self.reported: Callable[[ResultRecord], None] = _chain(listeners, "reported")
        self.soft_limit_passed: Callable[[Attempt, float], None] = _chain(listeners, "soft_limit_passed")
        self.ended: Callable[[Attempt], None] = _chain(listeners, "ended")
        self.parked: Callable[[Attempt], None] = _chain(listeners, "parked")
        self.declined: Callable[[Attempt], None] = _chain(listeners, "declined")
        self.refused: Callable[[Attempt], None] = _chain(listeners, "refused")
        self.failed: Callable[[Attempt, Exception], None] = _chain(listeners, "failed")
        self.lost: Callable[[Attempt, Exception], None] = _chain(listeners, "lost")
        self.worker_made: Callable[[Made], None] = _chain(listeners, "worker_made")
        self.worker_starting: Callable[[str], None] = _chain(listeners, "worker_starting")
        self.worker_ready: Callable[[str], None] = _chain(listeners, "worker_ready")
        self.worker_reconnected: Callable[[str], None] = _chain(listeners, "worker_reconnected")
        self.heartbeat: Callable[[str], None] = _chain(listeners, "heartbeat")
        self.child_started: Callable[[str, int], None] = _chain(listeners, "child_started")
        self.child_stopped: Callable[[str, int], None] = _chain(listeners, "child_stopped")
        self.worker_stopping: Callable[[str], None] = _chain(listeners, "worker_stopping")
        self.worker_hurrying: Callable[[str, float], None] = _chain(listeners, "worker_hurrying")
        self.worker_stopped: Callable[[str], None] = _chain(listeners, "worker_stopped")
        self._of_kind = {
            Kind.ENDED: self.ended,
            Kind.PARKED: self.parked,
            Kind.DECLINED: self.declined,
            Kind.REFUSED: self.refused,
        }

    def settled(self, attempt: Attempt) -> None:
        """Call the event of an attempt's decision, which has landed."""
        assert attempt.decision is not None
        kind = attempt.decision.kind
        if kind is Kind.ENDED:  # almost always; the hash of an enum's member is slow
            self.ended(attempt)
        else:
            self._of_kind[kind](attempt)


def _chain(listeners: Sequence[Listener], event: str) -> Telling:
    """Return a function that calls this event's method of each listener that overrides it."""
    silent = getattr(Listener, event)
    hearing = [getattr(one, event) for one in listeners if getattr(type(one), event) is not silent]
    if not hearing:
        return _nobody
    told_of: set[Any] = set()

    def tell(fact: Any, *more: Any) -> None:
        for hear in hearing:
            try:
                if more:
                    hear(fact, *more)
                else:
                    hear(fact)
            except Exception:
                if hear not in told_of:
                    told_of.add(hear)
                    logger.exception("listener %s failed; further failures of it are not logged", hear)

    return tell


def _nobody(*_: Any) -> None:
    """Stand in for an event that no listener overrides."""
