"""Reads a message, gathers the facts that the gate needs, and either lets the attempt run or gives it a decision.

Rules: the gate is pure, so this module asks the servers on its behalf: whether another copy of the message was taken,
which tasks were revoked, and whether another message on its last delivery runs already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from celeriac.canvas.budget import Budget, is_light
from celeriac.servers.offload import in_thread
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Unreadable
from celeriac.wire.task import Malformed, TaskMessage, decode, takes_long
from celeriac.worker.attempt import Attempt
from celeriac.worker.copies import Copies
from celeriac.worker.gate import Facts, Hold, Run, RunApart, admit
from celeriac.worker.insist import Insist
from celeriac.worker.judging import Judge
from celeriac.worker.last_chances import LastChances
from celeriac.worker.listeners import Listeners
from celeriac.worker.rate_limits import RateLimits
from celeriac.worker.reserving import Reserving
from celeriac.worker.revocations import RevocationList
from celeriac.worker.runnable import Runnable


class Admission:
    """Decides for one worker which attempts run.

    :param now: seconds since the epoch.
    :param max_deliveries: how often a message may be delivered, unless its task sets a number of its own.
    :param budget: the limits on what one message may send on.
    :param copies: tells the copies of a message apart, where there may be any.
    """

    def __init__(
        self,
        tasks: Mapping[str, Runnable],
        codecs: Codecs,
        now: Callable[[], float],
        max_deliveries: int,
        copies: Copies | None,
        revocations: RevocationList,
        judge: Judge,
        listeners: Listeners,
        insist: Insist,
        budget: Budget,
        reserving: Reserving,
        rate_limits: RateLimits,
    ) -> None:
        self._tasks = tasks
        self._codecs = codecs
        self._now = now
        self._max_deliveries = max_deliveries
        self._copies = copies
        self._revocations = revocations
        self._judge = judge
        self._listeners = listeners
        self._insist = insist
        self._budget = budget
        self._rate_limits = rate_limits
        self._last_chances = LastChances(now, reserving, insist)

    async def admit(self, attempt: Attempt) -> None:
        """Read the message; give the attempt a decision where it is not to run."""
        envelope = attempt.delivery.envelope
        content: TaskMessage | Malformed | Unreadable
        if isinstance(envelope, Unreadable):
            content = envelope
        elif len(envelope.body) > self._codecs.quick and takes_long(envelope, self._codecs):
            content = await in_thread(partial(decode, envelope, self._codecs))
        else:
            content = decode(envelope, self._codecs)
        now, kept_until = self._now(), attempt.delivery.kept_until
        facts = Facts(
            self._tasks,
            now if kept_until is None else max(now, kept_until),
            self._revocations.revoked,
            attempt.delivery.deliveries,
            self._allowed,
            self._copies is not None and await self._is_second_copy(attempt, self._copies),
            self._budget,
            kept_until is not None,
            self._judge.unkept,
        )
        attempt.is_light = not isinstance(content, TaskMessage) or is_light(content)
        if attempt.is_light:
            verdict = admit(content, facts)
        else:
            verdict = await in_thread(partial(admit, content, facts))
        attempt.message = verdict.message
        self._listeners.received(attempt)
        if type(verdict) is Run or type(verdict) is RunApart:
            until = self._rate_limits.turn(verdict.message, facts.now)
            if until is not None:
                verdict = Hold(verdict.message, until)
        if type(verdict) is RunApart:
            attempt.is_last_chance = True
            verdict = await self._last_chances.enter(verdict.message, attempt.delivery)
        if type(verdict) is not Run:
            assert not isinstance(verdict, Run | RunApart)
            if attempt.is_light:
                self._judge.decline(attempt, verdict)
            else:
                await in_thread(partial(self._judge.decline, attempt, verdict))

    def leave(self, attempt: Attempt) -> None:
        """Note that an attempt on its last chance is over."""
        self._last_chances.leave(attempt.delivery)

    def read_again(self, attempt: Attempt) -> None:
        """Read a message on which the worker failed before it was read."""
        envelope = attempt.delivery.envelope
        if not attempt.message.id and not isinstance(envelope, Unreadable):
            content = decode(envelope, self._codecs)
            if isinstance(content, TaskMessage):
                attempt.message = content

    async def _is_second_copy(self, attempt: Attempt, copies: Copies) -> bool:
        envelope = attempt.delivery.envelope
        if isinstance(envelope, Unreadable) or envelope.copy is None:
            return False
        return not await self._insist(partial(copies.is_first, envelope.copy), "telling copies apart")

    def _allowed(self, name: str) -> int:
        """Return how often a message of this task may be handed out."""
        return self._tasks[name].options.max_deliveries or self._max_deliveries
