"""Sends the follow-ups of a task, and completes chords.

Rules: a chord is known to the result store before any of its parts is published. The worker that holds the claim sends
the body, and renews the claim before every try. A worker that finds the claim held waits until the chord is done or the
claim is free: otherwise it could settle a redelivered last part before the body is out. Bodies and errbacks are
published under a key, so that they are not sent twice if a worker died after publishing them and another takes over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Any

import msgspec

from celeriac.canvas.advance import Advance, Casualty, Part, after_failure, after_parts, body_lost, lost_parts
from celeriac.canvas.budget import LIGHT, Budget, is_light
from celeriac.canvas.launch import FollowUp
from celeriac.client.publisher import Publisher
from celeriac.contracts.backend import Backend, ChordStore, Claim, EncodedPart, Standing, keeper
from celeriac.errors import (
    BackendError,
    CeleriacError,
    ChordError,
    DeliveryLost,
    EncodeError,
    MalformedMessage,
)
from celeriac.retry import Backoff
from celeriac.routing import SendOptions
from celeriac.servers.offload import in_thread
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.failure import Failure, describe, rebuild
from celeriac.wire.result import FAILURE, REVOKED, SUCCESS, ResultRecord
from celeriac.wire.task import TaskMessage
from celeriac.worker.copies import Copies
from celeriac.worker.decision import Decision
from celeriac.worker.errbacks import Errbacks
from celeriac.worker.insist import UNAVAILABLE, Insist
from celeriac.worker.outcome import NOTHING

FIRST_LOOK, LONGEST_LOOK = 0.05, 1.0
"""The shortest and the longest pause, in seconds, between two looks at a claim that another worker holds."""

logger = logging.getLogger("celeriac.worker")


class Workflows:
    """Sends follow-ups and the bodies of chords, for one worker.

    :param defaults: the options of a task's calls.
    :param budget: how much one message, or one chord, may send.
    :ivar copies: recognises second copies of messages, where the broker may repeat them; else ``None``.
    """

    def __init__(
        self,
        backend: Backend,
        publisher: Publisher,
        insist: Insist,
        errbacks: Errbacks,
        now: Callable[[], float],
        defaults: Callable[[str], SendOptions],
        budget: Budget,
    ) -> None:
        self.copies = _copies(backend) if publisher.broker.may_repeat else None
        self._backend = backend
        self._keeps = keeper(backend)
        self._publisher = publisher
        self._insist = insist
        self._errbacks = errbacks
        self._now = now
        self._defaults = defaults
        self._budget = budget

    async def follow_up(self, decision: Decision) -> bool:
        """Send a decision's follow-ups; return ``False`` where there are none, or an earlier delivery has sent them.

        Raises ``EncodeError`` before anything is sent. An errback that cannot be encoded is only logged.
        """
        prepared = await self._messages_of(decision)
        await self._join(decision)
        return await self._send(decision, prepared, decision.once)

    async def prepare(self, decision: Decision) -> Sequence[tuple[Envelope, Route]]:
        """Open the chords that a decision starts in the result store; return its follow-ups, encoded and routed."""
        messages = await self._messages_of(decision)
        await self._join(decision)
        await self._open(decision)
        return messages

    async def forget(self, decision: Decision) -> None:
        """Forget the key under which the follow-ups were sent, now that the message is settled."""
        if decision.once is not None and decision.sends:
            await self._forget_once(decision.once)

    async def count(self, parts: Sequence[EncodedPart], standings: Sequence[Standing] = ()) -> None:
        """Count parts of chords; send each body that is due, and fail each body that can never run.

        :param standings: the standings of the chords whose parts were counted already, in the order of the parts.
        """
        pending = deque(zip_longest(parts, standings))
        while pending:
            encoded, standing = pending.popleft()
            claim = await self._claim(encoded, standing)
            if claim is not None:
                pending.extend((other, None) for other in await self._complete(encoded.part, claim))

    async def unlock(
        self, message: TaskMessage, chord_id: str, body: dict[str, Any], records: list[Any]
    ) -> None:
        """Send the body of a chord that the result store did not count.

        :param message: the message of the task that watched the header.
        :param records: the records of the header's members, in lists that nest as the members do.
        """
        root_id = message.root_id or message.id
        part = Part(chord_id, message.id, None, SUCCESS, None, body, root_id, message.protocol)
        try:
            launched = await self._after_parts(part, records)
            prepared = await self._prepare(launched.follow_ups)
        except _PartFailed as failed:
            await self.count(await self._lose(part, failed.error, failed.cause))
        except (MalformedMessage, EncodeError) as error:
            reason = ChordError(f"the body cannot be sent: {error}")
            await self.count(await self._lose(part, reason, describe(reason)))
        else:
            await self._send(launched, prepared, _body_of(chord_id))

    async def give_up(self, message: TaskMessage, chord_id: str, body: dict[str, Any], reason: str) -> None:
        """Fail the body of a chord that the result store did not count, and whose header did not end in time."""
        root_id = message.root_id or message.id
        part = Part(chord_id, message.id, None, FAILURE, None, body, root_id, message.protocol)
        error = ChordError(reason)
        await self.count(await self._lose(part, error, describe(error)))

    @property
    def _store(self) -> ChordStore:
        store = self._backend.chords
        if store is None:
            raise BackendError(
                "a chord needs a result backend that can count: Redis, SQLite or memory; this worker's cannot"
            )
        return store

    async def _join(self, decision: Decision) -> None:
        if decision.joined and decision.joins is not None:
            joining = partial(self._store.extend, decision.joins, decision.joined)
            await self._insist(joining, "adding to a chord")

    async def _open(self, sent: Decision | Advance) -> None:
        if sent.openings:
            await self._insist(partial(self._store.open, sent.openings), "opening chords")

    async def _messages_of(self, decision: Decision) -> Sequence[tuple[Envelope, Route]]:
        try:
            prepared = await self._prepare(decision.follow_ups)
        except EncodeError as error:
            if decision.state != FAILURE:
                raise
            logger.error("errbacks cannot be sent: %s", error)
            return decision.written
        return [*prepared, *decision.written] if decision.written else prepared

    async def _prepare(self, follow_ups: Sequence[FollowUp]) -> Sequence[tuple[Envelope, Route]]:
        return await self._publisher.prepare(follow_ups, self._defaults, self._budget) if follow_ups else ()

    async def _after_parts(self, part: Part, values: Sequence[Any]) -> Advance:
        """Return the messages that a complete chord sends. Raises ``MalformedMessage`` for more than the budget."""

        def launched() -> Advance:
            with_values = [_value(value) for value in values]
            if (excess := self._budget.excess_of(part.body)) is not None:
                raise MalformedMessage(f"too much is to be sent at once: {excess}")
            return after_parts(part, with_values)

        return launched() if len(values) < LIGHT and is_light(_alone(part)) else await in_thread(launched)

    async def _send(
        self, sent: Decision | Advance, prepared: Sequence[tuple[Envelope, Route]], once: str | None = None
    ) -> bool:
        await self._open(sent)
        if not prepared:
            return False
        publishing = partial(self._publisher.publish_prepared, prepared, once)
        return await self._insist(
            publishing, f"publishing {prepared[0][0].headers.get('task') or 'follow-ups'}"
        )

    async def _claim(self, encoded: EncodedPart, standing: Standing | None) -> Claim | None:
        """Count a part; return the claim to the body if this worker is to send it, else ``None``."""
        backoff = Backoff(FIRST_LOOK, LONGEST_LOOK)
        while True:
            if standing is None:
                standing = await self._insist(partial(self._store.count, encoded), "counting a chord's part")
            if standing.held_for is None:
                return standing.claim
            # The worker that holds the claim is mostly done in a moment. If it died, its claim ends by itself.
            await asyncio.sleep(min(backoff.pause(), standing.held_for))
            standing = None

    async def _complete(self, part: Part, claim: Claim) -> list[EncodedPart]:
        """Send the body, or fail it; return the parts of other chords that end with it."""
        others: list[EncodedPart] = []
        once = _body_of(claim.chord_id, claim.run)
        try:
            await self._send_body(part, claim)
        except _PartFailed as failed:
            others = await self._lose(part, failed.error, failed.cause)
            claim = msgspec.structs.replace(claim, failed=True)
        except (DeliveryLost, *UNAVAILABLE):
            raise
        except CeleriacError as error:
            logger.exception("chord %s: its body cannot be sent", part.chord_id)
            reason = ChordError(f"the body cannot be sent: {error}")
            others = await self._lose(part, reason, describe(reason))
        await self._insist(partial(self._store.finish, claim), "closing a chord")
        await self._forget_once(once)
        return others

    async def _send_body(self, part: Part, claim: Claim) -> None:
        values = await self._insist(partial(self._store.collect, claim), "collecting a chord")
        body = await self._after_parts(part, values)
        prepared = await self._prepare(body.follow_ups)
        await self._open(body)
        await self._insist(partial(self._publish_claimed, prepared, claim), "publishing the body of a chord")

    async def _publish_claimed(self, prepared: Sequence[tuple[Envelope, Route]], claim: Claim) -> None:
        if await self._store.renew(claim) and prepared:
            await self._publisher.publish_prepared(prepared, _body_of(claim.chord_id, claim.run))

    async def _forget_once(self, key: str) -> None:
        with suppress(CeleriacError):  # a key that is not forgotten expires by itself, a day later
            await self._publisher.broker.forget_once(key)
            if self.copies is not None:
                await self.copies.forget(key)

    async def _lose(self, part: Part, error: ChordError, cause: Failure) -> list[EncodedPart]:
        """Store failures of the body and all later steps, and call errbacks; return their parts of other chords."""
        logger.warning("chord %s: %s", part.chord_id, error)
        messages, lost = body_lost(part)
        # Celery: each member of a group fails with what the part raised, any other body with the ChordError.
        failure = describe(error) if len(messages) == 1 else cause
        errbacks = {message.id: after_failure(message, self._errbacks.is_inline) for message in messages}
        for casualty in lost:
            if self._keeps(casualty.task_id):
                sent = errbacks.get(casualty.task_id, NOTHING)
                await self._store_failure(casualty, failure, sent.children)
        for message in messages:
            await self._send_errbacks(errbacks[message.id], f"{message.id}.errbacks")
            await self._errbacks.call_for(message, error if len(messages) == 1 else rebuild(cause))
        if self._backend.chords is None:
            return []
        others = lost_parts(lost, FAILURE, failure, root_id=part.root_id, protocol=part.protocol)
        return [self._backend.chords.encode(other) for other in others]

    async def _send_errbacks(self, sent: Advance, once: str) -> None:
        try:
            prepared = await self._prepare(sent.follow_ups)
        except EncodeError as error:
            logger.error("errbacks cannot be sent: %s", error)
        else:
            await self._send(sent, prepared, once)

    async def _store_failure(self, lost: Casualty, failure: Failure, children: Sequence[Any]) -> None:
        """Store the failure of a task that never ran, with its errbacks as its children, as Celery does."""
        record = ResultRecord(
            task_id=lost.task_id,
            status=FAILURE,
            result=failure,
            children=list(children),
            date_done=datetime.fromtimestamp(self._now(), UTC),
            name=lost.task,
            args=lost.args,
            kwargs=lost.kwargs,
            retries=0,
            args_repr=lost.args_repr,
            kwargs_repr=lost.kwargs_repr,
        )
        await self._insist(partial(self._backend.store, self._backend.encode(record)), "storing a result")


def _body_of(chord_id: str, run: str = "") -> str:
    """Return the key under which the body of a chord is published, in this run of it."""
    return f"{chord_id}.body.{run}" if run else f"{chord_id}.body"


def _alone(part: Part) -> TaskMessage:
    """Return a message whose only follow-up is the body of the chord."""
    return TaskMessage(id=part.task_id, task="", chord=part.body)


class _PartFailed(Exception):
    """A part of the header failed."""

    def __init__(self, error: ChordError, cause: Failure) -> None:
        super().__init__(error)
        self.error = error
        self.cause = cause


def _value(part: Any) -> Any:
    """Return the value of a part, or of each part in a list of them."""
    if isinstance(part, list):
        return [_value(one) for one in part]
    state = part.status if isinstance(part, ResultRecord) else part.state
    value = part.result if isinstance(part, ResultRecord) else part.value
    if state not in (FAILURE, REVOKED):
        return value
    failure = value if isinstance(value, Failure) else describe(Exception(value))
    raise _PartFailed(ChordError(f"Dependency {part.task_id} raised {rebuild(failure)!r}"), failure)


def _copies(backend: Backend) -> Copies | None:
    """Return the memory of taken copies, if the result store has a board to keep it on."""
    marks = backend.board.marks if backend.board is not None else None
    return Copies(marks) if marks is not None else None
