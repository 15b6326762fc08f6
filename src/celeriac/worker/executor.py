"""One attempt, start to finish, as a straight line.

Rules: every effect that must land goes through ``insist``; a void receipt ends the attempt; no exception leaves
``run``, so one attempt cannot end another or the worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from celeriac.backend import Copies
from celeriac.broker import Delivery, Receipt
from celeriac.client.app import App, Connections
from celeriac.client.task import AS_JSON, Task
from celeriac.context import CURRENT
from celeriac.errors import BrokerError, CeleriacError, DeliveryLost, EncodeError, WorkerLost
from celeriac.retry import Retry
from celeriac.servers.offload import in_thread
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.preview import preview
from celeriac.wire.result import RETRY, STARTED, SUCCESS, ResultRecord
from celeriac.wire.task import Malformed, TaskMessage, decode, takes_long
from celeriac.worker.admission import (
    Admission,
    Discard,
    Drop,
    Hold,
    Refuse,
    Run,
    RunApart,
    admit,
    refuse_poison,
)
from celeriac.worker.announcer import Announcer
from celeriac.worker.attempt import SPENT, Attempt, Reports
from celeriac.worker.builtin import Repertoire
from celeriac.worker.deadline import bounded
from celeriac.worker.errbacks import Errbacks
from celeriac.worker.forks import FORKS, end_copy
from celeriac.worker.insist import Insist
from celeriac.worker.last_chances import LastChances
from celeriac.worker.outcome import (
    Decision,
    Ending,
    Raised,
    Returned,
    Settle,
    Stopped,
    Terms,
    failed,
    judge,
    revoked,
)
from celeriac.worker.pool import Call, Pool
from celeriac.worker.raised import as_exception, forget_frames
from celeriac.worker.revocations import RevocationList
from celeriac.worker.slots import Slots
from celeriac.worker.workflows import Workflows

logger = logging.getLogger("celeriac.worker")

LARGE = 1024 * 1024
"""Bytes of a result that a store may find too large."""

CUT_SHORT = "the worker stopped while it ran, and it is not to run twice"


class Executor:
    """Runs deliveries for one worker, in the event loop that made it."""

    def __init__(
        self,
        app: App,
        connections: Connections,
        pool: Pool,
        slots: Slots,
        insist: Insist,
        revocations: RevocationList,
        errbacks: Errbacks,
        announcer: Announcer,
        node: str,
    ) -> None:
        self._settings = app.settings
        self._codecs = app.codecs
        self._now = app.clock.now
        self._backend = connections.backend
        self._pool = pool
        self._slots = slots
        self._insist = insist
        self._last_chances = LastChances(app.clock.now)
        self._loop = asyncio.get_running_loop()
        self._forks = FORKS.count
        self._revocations = revocations
        self._bodies: dict[asyncio.Task[Any], Attempt] = {}
        self._errbacks = errbacks
        self._workflows = Workflows(
            connections.backend, connections.publisher, insist, errbacks, app.clock.now, app.defaults
        )
        self._tasks = Repertoire(app, pool, self._workflows)
        self._encode_part = connections.backend.chords.encode if connections.backend.chords else None
        self._announcer = announcer
        self._node = node
        self._identity = {"pid": os.getpid(), "hostname": node}

    async def run(self, delivery: Delivery) -> None:
        """Deal with one delivery. Raises nothing but cancellation, after giving the message back."""
        slots = self._slots
        running = True
        try:
            admission = self._admit(delivery)
            if admission is None:
                admission = await in_thread(partial(self._admit_slowly, delivery))
            if self._workflows.copies is not None and await self._is_repeat(
                self._workflows.copies, delivery.envelope
            ):
                admission = Drop()
            if type(admission) is RunApart:
                admission = await self._last_chances.enter(admission.message, delivery)
            if type(admission) is Run:
                attempt = await self._begin(admission.message, delivery)
                ending = await self._call(attempt)
                slots.body_done()
                running = False
                await self._conclude(attempt, ending)
            else:
                await self._decline(admission, delivery)
        except DeliveryLost as lost:
            self._announcer.lost(delivery.queue, lost)
        except asyncio.CancelledError:
            await self._give_back(delivery)
        except Exception as error:
            logger.exception(
                "queue %s: the worker failed on a message, which is dead-lettered", delivery.queue
            )
            await self._set_aside(delivery, error)
        finally:
            if running:
                slots.body_done()
            slots.settled()
            if delivery.deliveries > 1:
                self._last_chances.leave(delivery)

    def stop_revoked(self) -> None:
        """Cancel the running bodies that were revoked meanwhile, as far as they can be stopped."""
        revoked = self._revocations.revoked
        for running, attempt in self._bodies.items():
            message = attempt.message
            if attempt.revoked or not (message.id in revoked.ids or message.root_id in revoked.roots):
                continue
            killed = message.id in revoked.terminate or message.root_id in revoked.terminate
            if attempt.task.is_coroutine or (killed and self._pool.can_stop):
                attempt.revoked = True
                running.cancel()

    def is_busy(self) -> bool:
        """Whether a body runs."""
        return bool(self._bodies)

    def stop_bodies(self) -> int:
        """Cancel every running body; return how many messages that gives back."""
        for running in self._bodies:
            running.cancel()
        return sum(attempt.receipt is not SPENT for attempt in self._bodies.values())

    async def abandon_bodies(self) -> None:
        """Settle what runs on although it was cancelled as if it had ended by that: it ends with the process."""
        for attempt in list(self._bodies.values()):
            logger.error(
                "%s[%s] does not let itself be cancelled and was abandoned",
                attempt.message.task,
                attempt.message.id,
            )
            with suppress(CeleriacError):  # its lease will end
                if attempt.receipt is SPENT:
                    await self._conclude(attempt, Raised(WorkerLost(CUT_SHORT)))
                else:
                    await self._insist(attempt.receipt.requeue, "giving a message back")

    async def _is_repeat(self, copies: Copies, envelope: Envelope | Unreadable) -> bool:
        if isinstance(envelope, Unreadable) or envelope.copy is None:
            return False
        return not await self._insist(partial(copies.is_first, envelope.copy), "telling copies apart")

    def _admit(self, delivery: Delivery) -> Admission | None:
        """Judge a message; ``None`` where that is better left to a thread."""
        envelope = delivery.envelope
        if isinstance(envelope, Unreadable):
            return self._judge(envelope, delivery)
        if takes_long(envelope, self._codecs):
            return None
        return self._judge(decode(envelope, self._codecs), delivery)

    def _admit_slowly(self, delivery: Delivery) -> Admission:
        envelope = delivery.envelope
        content = envelope if isinstance(envelope, Unreadable) else decode(envelope, self._codecs)
        return self._judge(content, delivery)

    def _judge(self, content: TaskMessage | Malformed | Unreadable, delivery: Delivery) -> Admission:
        admission = admit(content, self._tasks, self._now(), self._revocations.revoked)
        if delivery.deliveries > 1 and isinstance(admission, Run):
            allowed = (
                self._tasks[admission.message.task].options.max_deliveries or self._settings.max_deliveries
            )
            if delivery.deliveries > allowed:
                return refuse_poison(admission.message, delivery.deliveries, allowed)
            if delivery.deliveries == allowed:
                return RunApart(admission.message)
        return admission

    async def _begin(self, message: TaskMessage, delivery: Delivery) -> Attempt:
        task = self._tasks[message.task]
        reports = Reports(self._backend, self._loop)
        attempt = Attempt(message, task, delivery, reports, self._node)
        if (task.options.delivery or self._settings.delivery) == "at_most_once":
            await self._insist(partial(delivery.receipt.ack, surely=True), "acknowledging before the run")
            attempt.receipt = SPENT
        tracked = task.options.track_started
        if self._settings.track_started if tracked is None else tracked:
            reports(
                ResultRecord(
                    task_id=message.id, status=STARTED, result=self._identity, reply_to=message.reply_to
                )
            )
        return attempt

    async def _call(self, attempt: Attempt) -> Ending:
        running = asyncio.current_task()
        assert running is not None
        self._bodies[running] = attempt
        try:
            return Returned(await self._body(attempt))
        except asyncio.CancelledError as error:
            if attempt.revoked:
                running.uncancel()
                return Stopped()
            if running.cancelling():
                if attempt.receipt is not SPENT:
                    raise
                # Nobody can run it again, so whoever waits is told.
                running.uncancel()
                return Raised(WorkerLost(CUT_SHORT))
            return Raised(as_exception(error))
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its ending, not the worker's
            return Raised(as_exception(error))
        finally:
            del self._bodies[running]

    async def _body(self, attempt: Attempt) -> Any:
        task, message = attempt.task, attempt.message
        args, kwargs = task.arguments.bind(message.args, message.kwargs)
        task.inject(attempt.context, args, kwargs)
        soft, hard = attempt.limits(self._settings)
        if soft is not None or hard is not None:
            attempt.context.deadline = monotonic() + min(limit for limit in (soft, hard) if limit is not None)
        if task.is_coroutine:
            CURRENT.set(attempt.context)
            body = task.function(*args, **kwargs)
        else:
            body = self._pool.call(Call(task, args, kwargs, attempt.context, soft))
            soft = None
        if soft is None and hard is None:
            return await body
        return await bounded(body, soft, hard)

    async def _conclude(self, attempt: Attempt, ending: Ending) -> None:
        if self._forks != FORKS.count:
            end_copy(ending.error if isinstance(ending, Raised) else None)
        if attempt.reports.used:
            await attempt.reports.done()
        context = attempt.context
        decision = judge(attempt.message, ending, context.children, self._terms(attempt), context.joiners)
        try:
            try:
                await self._effect(decision)
            except EncodeError as error:
                decision = await self._fail_instead(attempt, error)
            await self._errbacks.call(attempt, decision)
            await self._settle(attempt.receipt, decision)
            self._announcer.ended(attempt, decision)
            await self._workflows.forget(decision)
        finally:
            if type(ending) is Raised:
                forget_frames(ending.error)
            if decision.error is not None:
                forget_frames(decision.error)

    async def _fail_instead(self, attempt: Attempt, error: EncodeError) -> Decision:
        """Let the task fail of what the services cannot carry; return what was done.

        If they cannot carry that either, it is recorded without the arguments, which may be what is too large.
        """
        terms, children = self._terms(attempt), attempt.context.children
        decision = failed(attempt.message, error, terms, children=children)
        try:
            await self._effect(decision)
        except EncodeError as again:
            bare = msgspec.structs.replace(attempt.message, args=[], kwargs={})
            decision = failed(bare, again, terms)
            await self._effect(decision)
        return decision

    async def _effect(self, decision: Decision) -> None:
        if _goes_on_first(decision):
            published = await self._workflows.follow_up(decision)
            if decision.state == RETRY and not published:
                return
        await self._record(decision)
        if decision.parts:
            await self._workflows.count(decision.parts)
        if decision.follow_ups and not _goes_on_first(decision):
            await self._workflows.follow_up(decision)

    async def _record(self, decision: Decision) -> None:
        for result in decision.results:
            record = result.record
            what = f"storing the result of {record.name}[{record.task_id}], {len(result.payload)} bytes,"
            await self._insist(partial(self._backend.store, result), what)

    async def _settle(self, receipt: Receipt, decision: Decision) -> None:
        if decision.settle is Settle.ACK:
            await self._insist(receipt.ack, "acknowledging")
        elif decision.settle is Settle.REQUEUE:
            await self._insist(receipt.requeue, "putting a message back")
        else:
            await self._insist(partial(receipt.bury, decision.reason), "dead-lettering a message")

    async def _decline(self, admission: Admission, delivery: Delivery) -> None:
        receipt = delivery.receipt
        match admission:
            case Hold(message=message, until=until):
                await self._insist(partial(receipt.park, until), "parking a message until its ETA")
                self._announcer.held(message, until)
            case Discard(message=message, reason=reason):
                decision = revoked(message, reason, self._refusal_terms(message, delivery))
                await self._effect(decision)
                await self._settle(receipt, decision)
                self._announcer.discarded(message, reason)
            case Drop():
                await self._insist(receipt.ack, "acknowledging")
                logger.info("queue %s: a second copy of a message is dropped", delivery.queue)
            case Refuse():
                decision = self._refusal(admission, delivery)
                await self._effect(decision)
                await self._settle(receipt, decision)
                self._announcer.refused(admission, delivery.queue)

    def _refusal(self, admission: Refuse, delivery: Delivery) -> Decision:
        message = admission.message or TaskMessage(
            id=admission.id or "", task=admission.task or "", reply_to=admission.reply_to
        )
        terms = self._refusal_terms(message, delivery)
        return failed(message, admission.error, terms, settle=Settle.BURY)

    async def _give_back(self, delivery: Delivery) -> None:
        try:
            await self._insist(delivery.receipt.requeue, "giving a message back")
        except (CeleriacError, asyncio.CancelledError) as error:
            logger.warning(
                "queue %s: a message could not be given back; its lease will end: %s", delivery.queue, error
            )

    async def _set_aside(self, delivery: Delivery, error: Exception) -> None:
        # Not given back: a message on which the worker itself fails would come round without end.
        told = await self._tell_of(delivery, error)
        try:
            await self._insist(
                partial(delivery.receipt.bury, f"the worker failed: {preview(error)}"),
                "dead-lettering",
                (BrokerError,),  # given up, it would be held as long as this worker lives
            )
        except (CeleriacError, asyncio.CancelledError) as again:
            logger.warning("queue %s: a message could not be dead-lettered: %s", delivery.queue, again)
        if not told:
            await self._tell_of(delivery, error)

    async def _tell_of(self, delivery: Delivery, error: Exception) -> bool:
        """Let those who wait know, as far as what the worker failed on lets it; return whether it did."""
        with suppress(Exception):
            content = delivery.envelope
            message = None if isinstance(content, Unreadable) else decode(content, self._codecs)
            if isinstance(message, TaskMessage):
                await self._effect(failed(message, error, self._refusal_terms(message, delivery)))
            return True
        return False

    def _terms(self, attempt: Attempt) -> Terms:
        options = attempt.task.options
        policy = options.retry or self._settings.default_retry
        keeps = self._keeps_result(attempt.message, options.ignore_result)
        return self._make_terms(
            attempt.queue,
            keeps,
            policy,
            gone=attempt.receipt is SPENT,
            tag=attempt.tag,
            redelivered=attempt.context.redelivered,
            require_same=self._checks_value(attempt.task),
        )

    def _checks_value(self, task: Task[Any, Any]) -> Callable[[Any], None] | None:
        if task.returns.names_records and self._settings.result_serializer in AS_JSON:
            return task.require_same
        return None

    def _refusal_terms(self, message: TaskMessage, delivery: Delivery) -> Terms:
        task = self._tasks.get(message.task)
        keeps = bool(message.id) and self._keeps_result(message, task.options.ignore_result if task else None)
        return self._make_terms(delivery.queue, keeps, None)

    def _make_terms(
        self,
        queue: str,
        keep_result: bool,
        policy: Retry | None,
        *,
        gone: bool = False,
        tag: str | None = None,
        redelivered: bool = False,
        require_same: Callable[[Any], None] | None = None,
    ) -> Terms:
        return Terms(
            retry=policy,
            keep_result=keep_result,
            queue=queue,
            now=datetime.fromtimestamp(self._now(), UTC),
            encode=self._backend.encode,
            random=random.random,
            inline=self._errbacks.is_inline,
            worker=self._node,
            encode_part=self._encode_part,
            gone=gone,
            tag=tag,
            redelivered=redelivered,
            require_same=require_same,
        )

    def _keeps_result(self, message: TaskMessage, task_ignores: bool | None) -> bool:
        for ignores in (message.ignore_result, task_ignores):
            if ignores is not None:
                return not ignores
        return not self._settings.ignore_result


def _goes_on_first(decision: Decision) -> bool:
    """Whether what follows is sent before the results are stored.

    A large success is stored first: should the store not take it, nothing may follow from it.
    """
    large = decision.state == SUCCESS and any(len(result.payload) >= LARGE for result in decision.results)
    return decision.publish_first and bool(decision.follow_ups) and not large
