"""Lands decisions: stores results, counts parts of chords, sends follow-ups and settles the message.

Rules: where queue and results are on one server, a decision lands in one step. Elsewhere its effects have an order in
which a worker's death at any point loses nothing, and repeats only what can be recognised as a repeat. On success the
follow-ups go out before the result, as in Celery, so that a caller that sees the result finds its children. On failure
the result comes first. The message is settled last. Every effect is insisted on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial

from celeriac.client.periodic import RunMarks, entry_alone, run_mark
from celeriac.contracts.backend import Backend, EncodedResult, UnmarkingBackend
from celeriac.contracts.board import Mark
from celeriac.contracts.broker import Delivery, UnmarkingReceipt
from celeriac.contracts.server import EarlySettlements, Landing, Settlements, weigh
from celeriac.contracts.set_aside import Failed, FailedTasks
from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError, EncodeError
from celeriac.wire.envelope import Envelope
from celeriac.wire.result import FAILURE, RETRY, STARTED, SUCCESS, ResultRecord
from celeriac.worker.attempt import SPENT, Attempt
from celeriac.worker.decision import Decision, Kind, Settle
from celeriac.worker.errbacks import Errbacks
from celeriac.worker.insist import UNAVAILABLE, Insist
from celeriac.worker.reports import Reports
from celeriac.worker.workflows import Workflows

logger = logging.getLogger("celeriac.worker")

_ACK = Settle.ACK  # up to Python 3.11, to look a member of an enum up costs as much as a call
_FOR_GOOD = (_ACK, Settle.BURY, Settle.FAIL)
"""How a message is settled that no attempt follows."""

LARGE = 1024 * 1024
"""Bytes of a result that a store may find too large."""


class Effects:
    """The effects of one worker.

    :param runs: the marks of periodic tasks whose runs must not overlap.
    :param settlements: lands a decision in one step; ``None`` where queue and results are on two servers.
    :param failed: keeps the messages of tasks that failed for good.
    :param node: the worker's name.
    """

    def __init__(
        self,
        backend: Backend,
        reports: Reports,
        settlements: Settlements | None,
        workflows: Workflows,
        errbacks: Errbacks,
        insist: Insist,
        failed: FailedTasks,
        runs: RunMarks | None,
        node: str,
    ) -> None:
        self._backend = backend
        self._reports = reports
        self._settlements = settlements
        self._early: EarlySettlements | None = (
            settlements if isinstance(settlements, EarlySettlements) else None
        )
        self._workflows = workflows
        self._errbacks = errbacks
        self._insist = insist
        self._failed = failed
        self._runs = runs
        self._identity = {"pid": os.getpid(), "hostname": node}

    async def land(self, attempt: Attempt) -> None:
        """Perform the attempt's decision, in one step where the servers allow that.

        Raises ``DeliveryLost`` for a void receipt.
        """
        decision, receipt = attempt.decision, attempt.receipt
        assert decision is not None
        mark = self._mark_of(attempt, decision) if attempt.message.headers else None
        if self._reports.used:
            await self._reports.done(attempt.message.id)
        settlements, results, parts = self._settlements, decision.results, decision.parts
        leads_on = decision.leads_on
        is_over = decision.settle in _FOR_GOOD and receipt is not SPENT
        if settlements is None or not is_over or not (results or parts or leads_on):
            await self._land_in_order(attempt, decision, mark)
            return
        messages = await self._workflows.prepare(decision) if leads_on else ()
        weight = weigh(results, parts, messages)
        if weight > settlements.limit:
            await self._land_in_order(attempt, decision, mark)
            return
        buried = failed = None
        if decision.settle is not _ACK:
            buried = decision.reason if decision.settle is Settle.BURY else None
            failed = _failed(attempt, decision) if decision.settle is Settle.FAIL else None
        held = decision.state == FAILURE and self._errbacks.concern(attempt.message, decision)
        landing = Landing(receipt, results, parts, messages, buried, held, failed, mark, weight)
        try:
            standings = await settlements.land(landing)
        except UNAVAILABLE as error:
            land = partial(settlements.land, landing)
            standings = await self._insist.again(land, partial(_landing, decision), error)
        if held or standings:
            await self._workflows.count(decision.parts, standings)
            await self._errbacks.call(attempt, decision)
            rest = Landing(
                receipt,
                messages=messages,
                buried=buried,
                failed=failed,
                mark=mark,
                weight=weigh((), (), messages),
            )
            await self._insist(partial(settlements.land, rest), partial(_landing, decision))

    async def begin(self, attempt: Attempt) -> None:
        """Acknowledge the message, and store STARTED, before the task runs, where its options ask for that."""
        if attempt.is_early and attempt.receipt is not SPENT:
            await self._acknowledge(attempt)
        if attempt.is_tracked:
            message = attempt.message
            self._reports(
                ResultRecord(
                    task_id=message.id, status=STARTED, result=self._identity, reply_to=message.reply_to
                )
            )

    async def _acknowledge(self, attempt: Attempt) -> None:
        acknowledge = partial(attempt.receipt.ack, surely=True)
        if self._early is not None:
            acknowledge = partial(self._early.acknowledge, attempt.receipt)
        await self._insist(acknowledge, "acknowledging before the run")
        attempt.receipt = SPENT

    async def record(self, attempt: Attempt) -> None:
        """Perform the attempt's decision but for settling the message; ``settle`` is the rest of it."""
        decision = attempt.decision
        assert decision is not None
        if self._reports.used:
            await self._reports.done(attempt.message.id)
        await self._follow_up_and_record(decision)

    async def settle(self, attempt: Attempt) -> None:
        """Settle the message of a decision that is recorded. Raises ``DeliveryLost`` for a void receipt."""
        decision = attempt.decision
        assert decision is not None
        await self._settle(attempt, decision, self._mark_of(attempt, decision))
        await self._workflows.forget(decision)

    def _mark_of(self, attempt: Attempt, decision: Decision) -> Mark | None:
        """Return the mark that this decision removes: that of a run beside which no other of its entry may begin."""
        message = attempt.message
        if self._runs is None or not (entry := entry_alone(message.headers)) or not _is_final(decision):
            return None
        return run_mark(entry, message.id)

    async def tell(self, decision: Decision) -> None:
        """Land a decision without settling its message, which the caller does."""
        await self._follow_up_and_record(decision)

    async def give_back(self, delivery: Delivery) -> None:
        """Give a message back to its queue; where that fails, its lease will end."""
        try:
            await self._insist(delivery.receipt.requeue, "giving a message back")
        except (CeleriacError, asyncio.CancelledError) as error:
            logger.warning(
                "queue %s: a message could not be given back; its lease will end: %s", delivery.queue, error
            )

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Move a message to the dead letters, whatever the worker failed on."""
        try:
            await self._insist(
                partial(delivery.receipt.bury, reason),
                "dead-lettering",
                (BrokerError,),  # after giving up, this worker would hold the message for as long as it lives
            )
        except (CeleriacError, asyncio.CancelledError) as error:
            logger.warning("queue %s: a message could not be dead-lettered: %s", delivery.queue, error)

    async def _land_in_order(self, attempt: Attempt, decision: Decision, mark: Mark | None) -> None:
        removed = await self._follow_up_and_record(decision, mark, self._early)
        if decision.state == FAILURE:
            await self._errbacks.call(attempt, decision)
        await self._settle(attempt, decision, None if removed else mark)
        if decision.once is not None:
            await self._workflows.forget(decision)

    async def _follow_up_and_record(
        self, decision: Decision, mark: Mark | None = None, early: EarlySettlements | None = None
    ) -> bool:
        """Do all but settling; return whether the mark was removed with the result, where it is on that server.

        :param early: stores results that may wait for others.
        """
        removed = False
        if _goes_on_first(decision):
            published = await self._workflows.follow_up(decision)
            if decision.state == RETRY and not published:
                return False
        for result in decision.results:
            store = partial(self._backend.store, result)
            if early is not None and len(result.payload) < LARGE:
                store = partial(early.store, result)
            if mark is not None and result is decision.results[-1] and (unmarking := self._unmarking()):
                store, removed = partial(unmarking.store_and_unmark, result, mark), True
            try:
                await store()
            except UNAVAILABLE as error:
                await self._insist.again(store, partial(_storing, result), error)
        if decision.parts:
            await self._workflows.count(decision.parts)
        if decision.sends and not _goes_on_first(decision):
            await self._workflows.follow_up(decision)
        return removed

    def _unmarking(self) -> UnmarkingBackend | None:
        """Return the result store if the marks of runs are on its server."""
        backend, runs = self._backend, self._runs
        beside = runs is not None and not runs.with_messages
        return backend if beside and isinstance(backend, UnmarkingBackend) else None

    async def _settle(self, attempt: Attempt, decision: Decision, mark: Mark | None = None) -> None:
        if mark is not None:
            await self._settle_and_unmark(attempt, decision, mark)
            return
        receipt = attempt.receipt
        if decision.settle is _ACK:
            try:
                await receipt.ack()
            except UNAVAILABLE as error:
                await self._insist.again(receipt.ack, "acknowledging", error)
            return
        match decision.settle:
            case Settle.REQUEUE:
                await self._insist(receipt.requeue, "putting a message back")
            case Settle.BURY:
                await self._insist(partial(receipt.bury, decision.reason), "dead-lettering a message")
            case Settle.FAIL:
                await self._insist(partial(self._keep, attempt, decision), "keeping a failed message")
            case Settle.PARK:
                await self._insist(partial(receipt.park, decision.until), "parking a message until its ETA")

    async def _keep(self, attempt: Attempt, decision: Decision) -> None:
        """Move the message of a failed task to the failed list; it may be acknowledged already."""
        failed, envelope = _failed(attempt, decision), attempt.delivery.envelope
        if attempt.receipt is not SPENT:
            await attempt.receipt.fail(failed)
        elif isinstance(envelope, Envelope):
            try:
                await self._failed.add(envelope, attempt.delivery.queue, failed)
            except BrokerUnavailable:
                raise
            except (BrokerError, EncodeError) as error:
                logger.warning("the message of %s[%s] is not kept: %s", *_named(attempt), error)

    async def _settle_and_unmark(self, attempt: Attempt, decision: Decision, mark: Mark) -> None:
        """End the run of a periodic task: with its message where the mark is on that server, else after it."""
        assert self._runs is not None, "a mark is one of these"
        ending, receipt = "ending the run of a periodic task", attempt.receipt
        if self._runs.with_messages and isinstance(receipt, UnmarkingReceipt):
            kept: str | Failed | None = decision.reason if decision.settle is Settle.BURY else None
            if decision.settle is Settle.FAIL:
                kept = _failed(attempt, decision)
            await self._insist(partial(receipt.settle_and_unmark, mark, kept), ending)
        else:
            await self._settle(attempt, decision)
            await self._insist(partial(self._runs.remove, mark), ending)


def _named(attempt: Attempt) -> tuple[str, str]:
    return attempt.message.task, attempt.message.id


def _failed(attempt: Attempt, decision: Decision) -> Failed:
    return Failed(attempt.message.id, decision.reason.encode(errors="backslashreplace").decode())


def _is_final(decision: Decision) -> bool:
    """Whether the run ends: no retry, no other delivery and no other task in its place follows, and it is no copy."""
    if decision.state is None and (decision.leads_on or decision.kind is Kind.DECLINED):
        return False
    return decision.settle in _FOR_GOOD and decision.state != RETRY


def _goes_on_first(decision: Decision) -> bool:
    """Whether the follow-ups are sent before the results are stored.

    A large result is stored first: if the store refuses it, the task fails, and nothing may follow from its success.
    """
    if not (decision.publish_first and decision.sends):
        return False
    return decision.state != SUCCESS or all(len(result.payload) < LARGE for result in decision.results)


def _storing(result: EncodedResult) -> str:
    record = result.record
    return f"storing the result of {record.name}[{record.task_id}], {len(result.payload)} bytes,"


def _landing(decision: Decision) -> str:
    return _storing(decision.results[0]) if decision.results else "landing an ending"
