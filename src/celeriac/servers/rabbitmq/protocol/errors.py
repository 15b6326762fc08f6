"""What goes wrong with a connection or a channel.

Rules: internal; the broker and the result store translate these into their own errors at their edge.
"""

from __future__ import annotations


class AmqpError(Exception):
    """Root of what this package raises."""


class Unavailable(AmqpError):
    """The server cannot be reached, is gone or did not answer in time. Worth another try."""


class QueueAway(Unavailable):
    """The server is there, and says that a durable queue is not: its node has just started, or has ended."""


class Refused(AmqpError):
    """The server refused something.

    :param code: AMQP's reply code (AMQP 0-9-1, section 1.2: constants), such as 404; 0 where there is none.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
RESOURCE_ERROR = 506
NOT_ALLOWED = 530
NOT_IMPLEMENTED = 540

CONNECTION_FORCED = 320
INTERNAL_ERROR = 541


_TOO_LARGE = "larger than configured max size"


def is_too_large(error: AmqpError) -> bool:
    """Whether the server refused a message for its size; the text has the message's and the largest."""
    return isinstance(error, Refused) and error.code == PRECONDITION_FAILED and _TOO_LARGE in str(error)


_AWAY = "is down or inaccessible"
"""What a node says, with ``NOT_FOUND``, of a durable queue whose own node has just started or is away."""
_NOT_YET = "Stream not found"
"""What a node says, with ``RESOURCE_ERROR``, of a stream that another connection is just making."""

_LOST = (
    "; if this lasts while every node is up, a node ended before it had written down that queue, which was just made: "
    "delete the queue, and it is made anew"
)


def of_reply(code: int, text: str) -> AmqpError:
    """Return the error for a close that the server sent: one that says that it is away, or that it refuses."""
    if code == NOT_FOUND and _AWAY in text:
        return QueueAway(f"{text} ({code}){_LOST}")
    if code in {CONNECTION_FORCED, INTERNAL_ERROR} or (code == RESOURCE_ERROR and _NOT_YET in text):
        return Unavailable(f"{text} ({code})")
    return Refused(f"{text} ({code})", code)
