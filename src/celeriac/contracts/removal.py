"""The contract of a removal: single messages leave the queue in which they wait, since a person wants them gone.

Rules: a message is removed or taken by a worker, never both. A removal goes in steps, so that workers and publishers
get their turn between two of them, and the caller may end it there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from celeriac.wire.envelope import Envelope, Unreadable

STEP = 200
"""Messages that one step looks at, if they are not large."""

Unwanted = Callable[[Envelope | Unreadable], bool]
"""Says of a message that waits whether it is to be removed."""


class Removed(msgspec.Struct, frozen=True):
    """What one step did.

    :param looked: at how many messages that wait; those to be taken next may be looked at twice.
    :param messages: what was removed.
    """

    looked: int
    messages: Sequence[Envelope | Unreadable] = ()


@runtime_checkable
class Removing(Protocol):
    """A broker from whose queues single messages can be removed; an optional ability.

    :ivar removal_reach: at how many messages of a queue it looks, those that are taken next; ``None`` for all.
    """

    removal_reach: int | None

    def remove(self, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
        """Remove the messages that wait in the queue and are unwanted, those that are taken next first.

        What a worker takes meanwhile, or holds, is not removed; what is published or comes back meanwhile may stay.
        Each step is done when it is yielded; an iterator that is not read on leaves the rest. Raises
        ``BrokerUnavailable`` in an outage: what the steps before did stays done.
        """
        ...
