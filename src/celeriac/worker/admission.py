"""Reads a message, gathers the facts that the gate needs, and either lets the attempt run or gives it a decision.

Rules: the gate is pure, so this module asks the servers on its behalf: whether another copy of the message was taken,
which tasks were revoked, and whether another message on its last delivery runs already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from celeriac.canvas.budget import Budget, is_light
from celeriac.servers.offload import in_thread
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.task import Malformed, TaskMessage, decode, takes_long
from celeriac.worker.attempt import Attempt
from celeriac.worker.builtin import Repertoire
from celeriac.worker.copies import Copies
from celeriac.worker.gate import Decline, Drop, Facts, Hold, Run, RunApart, Verdict, admit
from celeriac.worker.insist import Insist
from celeriac.worker.judging import Judge
from celeriac.worker.last_chances import LastChances
from celeriac.worker.listeners import Listeners
from celeriac.worker.plans import Plans
from celeriac.worker.rate_limits import RateLimits
from celeriac.worker.reserving import Reserving
from celeriac.worker.revocations import RevocationList


class Admission:
    """Decides for one worker which attempts run.

    :param now: seconds since the epoch.
    :param budget: the limits on what one message may send on.
    :param copies: tells the copies of a message apart, where there may be any.
    """

    def __init__(
        self,
        tasks: Repertoire,
        codecs: Codecs,
        now: Callable[[], float],
        plans: Plans,
        copies: Copies | None,
        revocations: RevocationList,
        judge: Judge,
        listeners: Listeners,
        insist: Insist,
        budget: Budget,
        reserving: Reserving,
        rate_limits: RateLimits,
        *,
        calls_back_unknown: bool = True,
    ) -> None:
        self._tasks = tasks
        self._codecs = codecs
        self._now = now
        self._plans = plans
        self._copies = copies
        self._revocations = revocations
        self._judge = judge
        self._listeners = listeners
        self._insist = insist
        self._rate_limits = rate_limits
        self._facts = Facts(tasks.find, self._allowed, budget, judge.unkept, calls_back_unknown)
        self._last_chances = LastChances(now, reserving, insist)

    def admit(self, attempt: Attempt) -> Awaitable[None] | None:
        """Read the message; give the attempt a decision where it is not to run.

        Returns what is to be awaited for that, where it takes long or a server is to be asked.
        """
        delivery = attempt.delivery
        envelope = delivery.envelope
        content: TaskMessage | Malformed | Unreadable
        now = 0.0
        if isinstance(envelope, Unreadable):
            content = envelope
        elif len(envelope.body) > self._codecs.quick or (self._copies and envelope.copy is not None):
            return self._admit_slowly(attempt, envelope)
        else:
            content = decode(envelope, self._codecs)
            if isinstance(content, TaskMessage):
                if not is_light(content):
                    return self._admit_slowly(attempt, envelope)
                if content.eta is not None or content.expires is not None:
                    now = self._now()
        verdict = admit(content, delivery, self._facts, self._revocations.revoked, now)
        return self._follow(attempt, verdict)

    async def _admit_slowly(self, attempt: Attempt, envelope: Envelope) -> None:
        """Admit a message that takes long, which is done in threads, or that may be a second copy."""
        if len(envelope.body) > self._codecs.quick and takes_long(envelope, self._codecs):
            content = await in_thread(partial(decode, envelope, self._codecs))
        else:
            content = decode(envelope, self._codecs)
        facts, revoked = self._facts, self._revocations.revoked
        verdict: Verdict
        if isinstance(content, TaskMessage) and await self._is_second_copy(envelope):
            verdict = Drop(content)
        else:
            attempt.is_light = not isinstance(content, TaskMessage) or is_light(content)
            weigh = partial(admit, content, attempt.delivery, facts, revoked, self._now())
            verdict = weigh() if attempt.is_light else await in_thread(weigh)
        if (waiting := self._follow(attempt, verdict)) is not None:
            await waiting

    def _follow(self, attempt: Attempt, verdict: Verdict) -> Awaitable[None] | None:
        """Do what the gate says; return what is to be awaited for that."""
        attempt.message = message = verdict.message
        self._listeners.received(attempt)
        if isinstance(verdict, Run) and message.task in self._rate_limits.free:
            return None
        if isinstance(verdict, Run | RunApart):
            until = self._rate_limits.turn(message, max(self._now(), attempt.delivery.kept_until or 0.0))
            if until is None:
                return None if isinstance(verdict, Run) else self._run_apart(attempt)
            verdict = Hold(message, until)
        return self._decline(attempt, verdict)

    async def _run_apart(self, attempt: Attempt) -> None:
        """Let the message have its last chance, once no other one runs; hold it back where one does."""
        attempt.is_last_chance = True
        verdict = await self._last_chances.enter(attempt.message, attempt.delivery)
        if type(verdict) is Hold and (waiting := self._decline(attempt, verdict)) is not None:
            await waiting

    def _decline(self, attempt: Attempt, verdict: Decline) -> Awaitable[None] | None:
        if not attempt.is_light:
            return in_thread(partial(self._judge.decline, attempt, verdict))
        self._judge.decline(attempt, verdict)
        return None

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

    async def _is_second_copy(self, envelope: Envelope) -> bool:
        if self._copies is None or envelope.copy is None:
            return False
        return not await self._insist(partial(self._copies.is_first, envelope.copy), "telling copies apart")

    def _allowed(self, name: str) -> int:
        """Return how often a message of this task may be handed out."""
        return self._plans[self._tasks[name]].max_deliveries
