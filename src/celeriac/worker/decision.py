"""The structs of judging: how a body ended, what that depends on besides, and all that follows from it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, TypeAlias

import msgspec

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import FollowUp, Opening
from celeriac.canvas.nodes import Signature
from celeriac.contracts.backend import EncodedPart, EncodedResult
from celeriac.retry import Retry
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.result import ResultRecord


class Settle(Enum):
    """How the message is settled."""

    ACK = "ack"
    REQUEUE = "requeue"
    BURY = "bury"
    FAIL = "fail"
    PARK = "park"


class Kind(Enum):
    """The occasion of a decision: an ending, or a verdict against running."""

    ENDED = "ended"
    PARKED = "parked"
    DECLINED = "declined"
    REFUSED = "refused"


Written: TypeAlias = tuple[Envelope, Route]
"""A message that needs nothing more but to be published."""


class Returned(msgspec.Struct, frozen=True):
    """The body returned a value.

    :param sent: the follow-ups, where the body has written them itself; ``None`` leaves them to the worker.
    """

    value: Any
    sent: Sequence[Written] | None = None


class Raised(msgspec.Struct, frozen=True):
    """The body raised, or could not be run.

    :param sent: as in ``Returned``.
    :param traceback: the text that is recorded, where the error does not carry its own.
    """

    error: BaseException
    sent: Sequence[Written] | None = None
    traceback: str | None = None


class Resent(msgspec.Struct, frozen=True):
    """The body has asked for another run of its task, and written the message for that.

    :param cause: the error that led to it, for the record.
    :param reason: a text for the log.
    """

    cause: BaseException | None
    sent: Sequence[Written]
    traceback: str | None = None
    reason: str = ""


class Replaced(msgspec.Struct, frozen=True):
    """The body has put other tasks in the place of its own, and written their messages."""

    sent: Sequence[Written]


class Stopped(msgspec.Struct, frozen=True):
    """The body was stopped because its task was revoked."""


Ending: TypeAlias = Returned | Raised | Stopped | Resent | Replaced


class Decision(msgspec.Struct, frozen=True):
    """All that follows from an ending or a verdict.

    :param state: the state the caller sees, ``None`` where nothing is recorded.
    :param written: follow-ups that the body has written itself.
    :param openings: the chords that must be known before the follow-ups go out.
    :param joined: ids of follow-ups that become further parts of the chord ``joins``.
    :param parts: the parts that chords count once the results are stored.
    :param once: the key under which the follow-ups are published once, however often the message is delivered.
    :param publish_first: whether follow-ups go out before the results: on success, as in Celery, so that a caller that
        sees the result finds its children; on a retry only where an earlier delivery may have sent the same retry,
        whose result must not be overwritten.
    :param until: when the message is due again, in seconds since the epoch; for ``PARK``.
    :param error: the error for the log, ``None`` on success.
    """

    state: str | None
    results: Sequence[EncodedResult] = ()
    follow_ups: Sequence[FollowUp] = ()
    written: Sequence[Written] = ()
    openings: Sequence[Opening] = ()
    joins: str | None = None
    joined: Sequence[str] = ()
    parts: Sequence[EncodedPart] = ()
    once: str | None = None
    publish_first: bool = False
    settle: Settle = Settle.ACK
    until: float = 0.0
    error: BaseException | None = None
    reason: str = ""
    kind: Kind = Kind.ENDED

    @property
    def sends(self) -> bool:
        """Whether messages follow."""
        return bool(self.follow_ups or self.written)

    @property
    def leads_on(self) -> bool:
        """Whether messages or chords follow."""
        return bool(self.follow_ups or self.written or self.openings or self.joined)


class WorkerTerms(msgspec.Struct, frozen=True):
    """The facts that all decisions of one worker depend on.

    :param encode: makes the bytes of a record; raises ``EncodeError``.
    :param random: gives the jitter, a float in [0, 1).
    :param inline: tells whether an errback with that signature is called in this worker.
    :param node: the worker's name.
    :param encode_part: makes the bytes of a chord's part; ``None`` where chords cannot be counted.
    :param keep_failed: whether the message of a failed task goes to the failed list, unless it is buried.
    :param put_off: counts a rejection of the message with this id; returns the seconds until it is queued again.
    :param keeps: tells whether a result can be kept under the id of a later step, which its sender chose.
    """

    encode: Callable[[ResultRecord], EncodedResult]
    random: Callable[[], float]
    inline: Callable[[Signature[Any]], bool]
    node: str
    encode_part: Callable[[Part], EncodedPart] | None = None
    keep_failed: bool = False
    put_off: Callable[[str], float] = lambda message_id: 0.0
    keeps: Callable[[str], bool] = lambda task_id: True


class Terms(msgspec.Struct, frozen=True):
    """The facts that a decision depends on besides the ending.

    :param keep_result: whether results of this message are stored.
    :param queue: where the message came from; a retry goes back there.
    :param tag: names the message's publication; the same for every delivery of it.
    :param redelivered: whether the message was delivered before, so that the earlier delivery may have done all this.
    :param gone: whether the message was acknowledged before the run, so that only a new message can repeat it.
    :param require_same: raises ``EncodeError`` for a value that JSON would change; ``None`` where it changes none.
    :param back: errors after which the message goes back to its queue.
    :param bury: whether the message of a failed task goes to the dead letters.
    """

    worker: WorkerTerms
    retry: Retry | None
    keep_result: bool
    queue: str
    now: datetime
    tag: str | None = None
    redelivered: bool = False
    gone: bool = False
    require_same: Callable[[Any], None] | None = None
    back: tuple[type[BaseException], ...] = ()
    bury: bool = False
