"""Decides what an ending means for the result, the follow-ups and the message.

Rules: this module is pure. A value that cannot be encoded becomes a FAILURE here, before any effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from celeriac.canvas.advance import (
    Advance,
    Casualty,
    Part,
    after_failure,
    after_success,
    casualties,
    joining,
    lost_parts,
    part_of,
    replacing,
)
from celeriac.canvas.launch import FollowUp
from celeriac.contracts.backend import EncodedPart, EncodedResult
from celeriac.errors import (
    EncodeError,
    Ignore,
    MalformedMessage,
    Reject,
    ReplaceRequested,
    RetryRequested,
    TaskRevoked,
)
from celeriac.wire.content import SERIALIZERS
from celeriac.wire.failure import Failure, describe, format_traceback
from celeriac.wire.preview import preview
from celeriac.wire.result import FAILURE, RETRY, REVOKED, SUCCESS, ResultRecord
from celeriac.wire.task import TaskMessage
from celeriac.worker.decision import (
    Decision,
    Ending,
    Kind,
    Raised,
    Replaced,
    Resent,
    Returned,
    Settle,
    Stopped,
    Terms,
)
from celeriac.worker.gate import Decline, Discard, Drop, Hold, Refuse
from celeriac.worker.raised import shorten

DEFAULT_MAX_ATTEMPTS = 4
"""Runs of a task that asks for retries without a policy (Celery: ``max_retries = 3``)."""

DEFAULT_RETRY_DELAY = 180.0
"""Seconds before such a retry (Celery: ``default_retry_delay``)."""


MANY_LOST = 100
"""Later steps of a failed task up to which each step's record keeps the traceback; beyond, their sum is too large."""

LONGEST_ERROR = 1024
"""Characters of the error that each record keeps where the steps are more than ``MANY_LOST``."""

NOTHING = Advance()


def judge(
    message: TaskMessage,
    ending: Ending,
    children: list[Any],
    terms: Terms,
    joiners: Sequence[dict[str, Any]] = (),
) -> Decision:
    """Return the decision that follows from the ending of an attempt.

    :param children: Celery result tuples of the tasks that the body sent.
    :param joiners: signatures that the body added to the chord of its task.
    """
    if isinstance(ending, Returned):
        return _succeeded(message, ending, children, terms, joiners)
    if isinstance(ending, Stopped):
        return revoked(message, "terminated", terms)
    if isinstance(ending, Raised) and not terms.gone and isinstance(ending.error, terms.back):
        return _put_back(message, Reject(preview(ending.error), requeue=True), terms)
    if not isinstance(ending, Raised) or ending.sent is not None:
        return _ended_and_wrote(message, ending, children, terms)
    error = ending.error
    if isinstance(error, RetryRequested):
        return _retry_requested(message, error, terms)
    if isinstance(error, ReplaceRequested):
        return _replaced(message, error, terms)
    if isinstance(error, Ignore):
        return _ignored(message, error, terms)
    if isinstance(error, Reject):
        return _rejected(message, error, terms)
    if terms.retry is not None and terms.retry.wants(error, message.retries + 1):
        return _retry(message, error, terms.retry.delay(message.retries + 1, terms.worker.random), terms)
    return failed(message, error, terms, children=children)


def _ended_and_wrote(
    message: TaskMessage, ending: Raised | Resent | Replaced, children: list[Any], terms: Terms
) -> Decision:
    """Return the decision for a body that did not return, and has written its own follow-ups."""
    if isinstance(ending, Resent):
        return _resent(message, ending, terms)
    if isinstance(ending, Replaced):
        return Decision(None, written=ending.sent, once=_key(message, terms, "instead"))
    error, sent = ending.error, ending.sent or ()
    if isinstance(error, Ignore):
        decision = _ignored(message, error, terms)
    elif isinstance(error, Reject) and error.requeue:
        decision = _put_back(message, error, terms)
    else:
        buried = isinstance(error, Reject) or (terms.bury and not terms.gone)
        settle = Settle.BURY if buried else _end_of_failed(terms)
        records, parts = _lost_with(
            message, FAILURE, describe(error), terms, ending.traceback or format_traceback(error), children
        )
        decision = Decision(
            FAILURE, results=records, parts=parts, settle=settle, error=error, reason=preview(error)
        )
    if not sent:
        return decision
    return msgspec.structs.replace(decision, written=sent, once=decision.once or _key(message, terms, "sent"))


def failed(
    message: TaskMessage,
    error: BaseException,
    terms: Terms,
    *,
    children: list[Any] | None = None,
    settle: Settle | None = None,
    kind: Kind = Kind.ENDED,
) -> Decision:
    """Return the decision for a task that failed for good.

    :param settle: ``BURY`` where no worker can run the message.
    """
    traceback = format_traceback(shorten(error))
    records, parts = _lost_with(message, FAILURE, describe(error), terms, traceback, children)
    advance = after_failure(message, terms.worker.inline)
    # A dead letter may be retried by hand, and its errbacks must then go out again: under a key they would be dropped.
    return Decision(
        FAILURE,
        results=records,
        follow_ups=advance.follow_ups,
        openings=advance.openings,
        parts=parts,
        once=_key(message, terms, "errbacks") if settle is None else None,
        settle=settle or _end_of_failed(terms),
        error=error,
        reason=preview(error),
        kind=kind,
    )


def _end_of_failed(terms: Terms) -> Settle:
    return Settle.FAIL if terms.worker.keep_failed else Settle.ACK


def revoked(message: TaskMessage, reason: str, terms: Terms, kind: Kind = Kind.ENDED) -> Decision:
    """Return the decision for a task that may not run any more (Celery: ``TaskRevokedError``)."""
    error = TaskRevoked(reason)
    records, parts = _lost_with(message, REVOKED, describe(error), terms)
    return Decision(REVOKED, results=records, parts=parts, error=error, reason=reason, kind=kind)


def declined(verdict: Decline, terms: Terms) -> Decision:
    """Return the decision for a message that does not run now."""
    message = verdict.message
    match verdict:
        case Hold(until=until):
            return Decision(None, settle=Settle.PARK, until=until, kind=Kind.PARKED)
        case Discard(reason=reason):
            return revoked(message, reason, terms, Kind.DECLINED)
        case Drop():
            return Decision(None, reason="a second copy", kind=Kind.DECLINED)
        case Refuse(error=error):
            return failed(message, error, terms, settle=Settle.BURY, kind=Kind.REFUSED)


def _lost_with(
    message: TaskMessage,
    state: str,
    failure: Failure,
    terms: Terms,
    traceback: str | None = None,
    children: list[Any] | None = None,
) -> tuple[list[EncodedResult], list[EncodedPart]]:
    """Return the records and the parts of a failed task and of the later steps that now never run."""
    lost = casualties(message)
    own = _record(message, state, failure, terms, traceback=traceback, children=children)
    records = [terms.worker.encode(own)] if terms.keep_result else []
    if len(lost) > MANY_LOST:
        # Each of them stores this failure, so a large one would make the sum of all too large.
        traceback, failure = None, _shortened(failure)
    records += [
        terms.worker.encode(
            ResultRecord(
                task_id=step.task_id,
                status=state,
                result=failure,
                traceback=traceback,
                date_done=terms.now,
                name=step.task,
                args=step.args,
                kwargs=step.kwargs,
                retries=0,
                reply_to=message.reply_to,
                args_repr=step.args_repr,
                kwargs_repr=step.kwargs_repr,
            )
        )
        for step in lost
        if terms.worker.keeps(step.task_id)
    ]
    return records, _encoded(_parts_lost_with(message, lost, state, failure), terms)


def _shortened(failure: Failure) -> Failure:
    message = failure.exc_message
    arguments = message if isinstance(message, list) else [message]
    if len(preview(arguments, LONGEST_ERROR + 1)) > LONGEST_ERROR:
        message = [preview(arguments, LONGEST_ERROR)]
    text = failure.exc_text
    return msgspec.structs.replace(
        failure, exc_message=message, exc_text=None if text is None else text[:LONGEST_ERROR]
    )


def _parts_lost_with(
    message: TaskMessage, lost: Sequence[Casualty], state: str, failure: Failure
) -> list[Part]:
    root_id = message.root_id or message.id
    later = lost_parts(lost, state, failure, root_id=root_id, protocol=message.protocol)
    return [*part_of(message, state, failure), *later]


def _encoded(parts: Sequence[Part], terms: Terms) -> list[EncodedPart]:
    return [] if terms.worker.encode_part is None else [terms.worker.encode_part(part) for part in parts]


def _succeeded(
    message: TaskMessage,
    ending: Returned,
    children: list[Any],
    terms: Terms,
    joiners: Sequence[dict[str, Any]],
) -> Decision:
    value, sent = ending.value, ending.sent
    advance = joined = NOTHING
    if terms.require_same is not None:
        try:
            terms.require_same(value)
        except EncodeError as error:
            return failed(message, error, terms, children=children)
    if sent is None and (message.callbacks or message.chain):
        advance = after_success(message, value)
        children = [*children, *advance.children]
    if joiners:
        joined = joining(message, joiners)
        children = [*children, *joined.children]
    try:
        parts = _encoded(part_of(message, SUCCESS, value), terms) if message.chord is not None else ()
        results = (
            (terms.worker.encode(_record(message, SUCCESS, value, terms, children=children)),)
            if terms.keep_result
            else ()
        )
    except EncodeError as error:
        return failed(message, error, terms, children=children)
    # In the order of the fields: looking the names up would cost as much again.
    if advance is NOTHING and joined is NOTHING and not sent:  # as most often
        return Decision(SUCCESS, results, (), (), (), message.group, (), parts, None, True)
    return Decision(
        SUCCESS,
        results,
        (*joined.follow_ups, *advance.follow_ups),
        sent or (),
        (*joined.openings, *advance.openings),
        message.group,
        joined.ends,
        parts,
        _key(message, terms, "next") if sent or advance.follow_ups or joined.follow_ups else None,
        True,
    )


def _replaced(message: TaskMessage, request: ReplaceRequested, terms: Terms) -> Decision:
    try:
        advance = replacing(message, request.signature)
    except MalformedMessage as error:
        return failed(message, error, terms)
    once = _key(message, terms, "instead")
    return Decision(None, follow_ups=advance.follow_ups, openings=advance.openings, once=once)


def _retry_requested(message: TaskMessage, request: RetryRequested, terms: Terms) -> Decision:
    policy = terms.retry
    made = message.retries + 1
    limit = request.max_attempts or (policy.max_attempts if policy else DEFAULT_MAX_ATTEMPTS)
    cause = request.cause or request.__cause__ or request.__context__ or request
    if made >= limit:
        return failed(message, cause, terms)
    delay = request.countdown
    if delay is None:
        delay = policy.delay(made, terms.worker.random) if policy else DEFAULT_RETRY_DELAY
    if request.arguments is not None:
        args, kwargs = request.arguments
        message = msgspec.structs.replace(
            message, args=list(args), kwargs=kwargs, args_repr=None, kwargs_repr=None
        )
    return _retry(message, cause, delay, terms)


def _retry(message: TaskMessage, error: BaseException, delay: float, terms: Terms) -> Decision:
    again = msgspec.structs.replace(
        message,
        retries=message.retries + 1,
        eta=terms.now + timedelta(seconds=delay),
        # Celery: a retried task without a parent becomes its own parent.
        parent_id=message.parent_id or message.id,
        root_id=message.root_id or message.id,
    )
    record = _record(message, RETRY, describe(error), terms, traceback=format_traceback(shorten(error)))
    results = [terms.worker.encode(record)] if terms.keep_result else []
    return Decision(
        RETRY,
        results=results,
        follow_ups=[_sent_again(again, terms)],
        once=_key(message, terms, "retry"),
        publish_first=terms.redelivered,
        error=error,
        reason=f"again in {delay:.3g} s: {preview(error)}",
    )


def _resent(message: TaskMessage, ending: Resent, terms: Terms) -> Decision:
    """Return the decision for a retry that the body has written itself; without a cause, null is recorded."""
    cause = None if ending.cause is None else describe(ending.cause)
    record = _record(message, RETRY, cause, terms, traceback=ending.traceback)
    return Decision(
        RETRY,
        results=[terms.worker.encode(record)] if terms.keep_result else [],
        written=ending.sent,
        once=_key(message, terms, "retry"),
        publish_first=terms.redelivered,
        error=ending.cause,
        reason=ending.reason,
    )


def _sent_again(message: TaskMessage, terms: Terms) -> FollowUp:
    """Return the same message for the queue that it came from; its content is copied unchanged."""
    return FollowUp(
        message,
        queue=terms.queue,
        serializer=message.content_type if message.content_type in SERIALIZERS.values() else None,
        compression=message.compression,
    )


def _key(message: TaskMessage, terms: Terms, what: str) -> str | None:
    """Return the key under which the follow-ups of this very message are published.

    One publication may be in several queues and run once from each, so the key names the queue: the follow-ups of one
    run must not be dropped as repeats of the other run's.
    """
    return None if terms.tag is None else f"{message.id}.{terms.tag}.{terms.queue}.{what}"


def _ignored(message: TaskMessage, ignore: Ignore, terms: Terms) -> Decision:
    """Record nothing, but count a part of a chord that ends with this task: the chord would wait for it for ever."""
    parts = _parts_lost_with(message, casualties(message), FAILURE, describe(ignore))
    return Decision(None, parts=_encoded(parts, terms))


def _rejected(message: TaskMessage, reject: Reject, terms: Terms) -> Decision:
    if reject.requeue:
        return _put_back(message, reject, terms)
    return failed(message, reject, terms, settle=Settle.BURY)


def _put_back(message: TaskMessage, reject: Reject, terms: Terms) -> Decision:
    """Requeue the message: at once the first time, after a longer delay each further time that it is rejected."""
    delay = terms.worker.put_off(message.id)
    due = terms.now + timedelta(seconds=delay)
    again = msgspec.structs.replace(message, eta=due) if delay else message
    return Decision(
        None,
        follow_ups=[_sent_again(again, terms)] if terms.gone else [],
        once=_key(message, terms, "anew"),
        settle=Settle.PARK if delay and not terms.gone else Settle.REQUEUE,
        until=due.timestamp() if delay else 0.0,
        error=reject,
        reason=f"rejected again, so that it waits for {delay:.3g} s: {reject.reason}"
        if delay
        else reject.reason,
    )


def _record(
    message: TaskMessage,
    status: str,
    result: Any | Failure,
    terms: Terms,
    *,
    traceback: str | None = None,
    children: list[Any] | None = None,
) -> ResultRecord:
    # In the order of the fields: looking the names up would cost more than the record.
    return ResultRecord(
        message.id,
        status,
        result,
        traceback,
        children if children is not None else [],
        None if status == RETRY else terms.now,
        message.group,
        message.parent_id,
        message.task,
        message.args,
        message.kwargs,
        terms.worker.node,
        message.retries,
        terms.queue,
        message.stamps,
        message.reply_to,
        message.args_repr,
        message.kwargs_repr,
    )
