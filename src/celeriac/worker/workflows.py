"""Sends what follows from a task, and sees chords to their end.

Rules: a chord is known to the result backend before any of its parts is published; a body is sent by whoever holds the
claim, which is renewed before every try; who finds a claim held waits until the chord is done or the claim is free, so
that a redelivered last part is not settled before the body is out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from celeriac.backend import Backend, ChordStore, Claim, EncodedPart, PartValue
from celeriac.canvas.advance import Advance, Part, after_failure, after_parts, body_lost, lost_parts
from celeriac.errors import BackendError, CeleriacError, ChordError, DeliveryLost
from celeriac.publisher import Publisher
from celeriac.routing import SendOptions
from celeriac.wire.failure import Failure, describe, rebuild
from celeriac.wire.result import FAILURE, REVOKED, ResultRecord
from celeriac.worker.errbacks import Errbacks
from celeriac.worker.insist import Insist
from celeriac.worker.outcome import Decision

logger = logging.getLogger("celeriac.worker")


class Workflows:
    """The way on from a task's end, for one worker.

    :param defaults: the options of a task's calls.
    """

    def __init__(
        self,
        backend: Backend,
        publisher: Publisher,
        insist: Insist,
        errbacks: Errbacks,
        now: Callable[[], float],
        defaults: Callable[[str], SendOptions],
    ) -> None:
        self._backend = backend
        self._publisher = publisher
        self._insist = insist
        self._errbacks = errbacks
        self._now = now
        self._defaults = defaults

    async def follow_up(self, decision: Decision) -> None:
        """Send what follows from a decision."""
        if decision.joined and decision.joins is not None:
            joining = partial(self._store.extend, decision.joins, decision.joined)
            await self._insist(joining, "adding to a chord")
        await self._send(decision)

    async def count(self, parts: Sequence[EncodedPart]) -> None:
        """Count parts of chords; send the bodies that are due, and fail those that will never be."""
        pending = deque(parts)
        while pending:
            encoded = pending.popleft()
            claim = await self._claim(encoded)
            if claim is not None:
                pending.extend(await self._complete(encoded.part, claim))

    @property
    def _store(self) -> ChordStore:
        store = self._backend.chords
        if store is None:
            raise BackendError(
                "a chord needs a result backend that can count: Redis, SQLite or memory; this worker's cannot"
            )
        return store

    async def _send(self, sent: Decision | Advance) -> None:
        if sent.openings:
            await self._insist(partial(self._store.open, sent.openings), "opening chords")
        if sent.follow_ups:
            publishing = partial(self._publisher.publish_workflow, sent.follow_ups, self._defaults)
            await self._insist(publishing, f"publishing {sent.follow_ups[0].message.task}")

    async def _claim(self, encoded: EncodedPart) -> Claim | None:
        """Count a part; return the claim of the body, ``None`` when nothing is left to be done here."""
        while True:
            standing = await self._insist(partial(self._store.count, encoded), "counting a chord's part")
            if standing.held_for is None:
                return standing.claim
            await asyncio.sleep(standing.held_for)

    async def _complete(self, part: Part, claim: Claim) -> list[EncodedPart]:
        """Send the body, or fail it; return the parts of other chords that this makes."""
        try:
            values = await self._insist(partial(self._store.collect, claim), "collecting a chord")
            body = after_parts(part, [_value(value) for value in values])
        except _PartFailed as failed:
            return await self._fail(part, claim, failed.error, failed.cause)
        except DeliveryLost:
            raise
        except CeleriacError as error:
            logger.exception("chord %s: its body cannot be sent", part.chord_id)
            reason = ChordError(f"the body cannot be sent: {error}")
            return await self._fail(part, claim, reason, describe(reason))
        if await self._insist(partial(self._store.renew, claim), "renewing the claim of a chord"):
            await self._send_body(body, claim)
        return []

    async def _send_body(self, body: Advance, claim: Claim) -> None:
        if body.openings:
            await self._insist(partial(self._store.open, body.openings), "opening chords")
        await self._insist(partial(self._publish_claimed, body, claim), "publishing the body of a chord")
        await self._insist(partial(self._store.finish, claim), "closing a chord")

    async def _publish_claimed(self, body: Advance, claim: Claim) -> None:
        if await self._store.renew(claim):
            await self._publisher.publish_workflow(body.follow_ups, self._defaults)

    async def _fail(self, part: Part, claim: Claim, error: ChordError, cause: Failure) -> list[EncodedPart]:
        """Fail the body and all after it: store, tell errbacks, and count where that is a part of another chord."""
        logger.warning("chord %s: %s", part.chord_id, error)
        messages, lost = body_lost(part)
        # Celery: each member of a group fails with what the part raised, any other body with the ChordError.
        failure = describe(error) if len(messages) == 1 else cause
        for casualty in lost:
            record = ResultRecord(
                task_id=casualty.task_id,
                status=FAILURE,
                result=failure,
                date_done=datetime.fromtimestamp(self._now(), UTC),
            )
            await self._insist(partial(self._backend.store, self._backend.encode(record)), "storing a result")
        for message in messages:
            await self._send(after_failure(message, self._errbacks.is_inline))
            await self._errbacks.call_for(message, error if len(messages) == 1 else rebuild(cause))
        await self._insist(partial(self._store.finish, claim), "closing a chord")
        others = lost_parts(lost, FAILURE, failure, root_id=part.root_id, priority=part.priority)
        return [self._store.encode(other) for other in others]


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
    assert isinstance(part, PartValue)
    if part.state not in (FAILURE, REVOKED):
        return part.value
    failure = part.value if isinstance(part.value, Failure) else describe(Exception(part.value))
    raise _PartFailed(ChordError(f"Dependency {part.task_id} raised {rebuild(failure)!r}"), failure)
