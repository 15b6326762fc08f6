"""Acknowledges the message of a call in its child, before its function runs.

Rules: a child that acknowledges messages stores the results of their tasks, too. Where the next call is there when a
function has ended, one trip stores the result of the one and acknowledges the message of the other.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from celeriac.contracts.backend import EncodedResult
from celeriac.contracts.server import Delegate, NotStored
from celeriac.wire.preview import preview

LOST = b""
"""Says that the worker did not hold the message any more."""

LARGE = 64 * 1024
"""Bytes of a result that goes by the worker: others wait meanwhile for what it is about to run."""

Delegated = tuple[bytes, str]
"""A pickled delegate, and the tag by which it acknowledges a message."""


class Acknowledging:
    """The delegates of one child, which are unpickled once."""

    def __init__(self) -> None:
        self._delegates: dict[bytes, Delegate] = {}
        self._told: tuple[Delegated, bytes | None] | None = None
        self._latest: bytes | None = None

    def refusal(self, delegated: Delegated) -> bytes | None:
        """Acknowledge a message, unless that is done; return why its call must not begin, ``None`` where it may."""
        told, self._told = self._told, None
        self._latest = delegated[0]
        if told is not None and told[0] == delegated:
            return told[1]
        try:
            return None if self._ask(delegated) else LOST
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker acknowledges the message then
            return _text(error)

    def forget(self) -> None:
        """Note that the worker has acknowledged the message of the present call."""
        self._latest = None

    def store(self, results: Sequence[EncodedResult], upcoming: Delegated | None) -> bool:
        """Store the results of the present call; return whether they are stored.

        :param upcoming: the message of the call that comes next, which is acknowledged in the same step.
        """
        if sum(len(result.payload) for result in results) > LARGE:
            return False
        if upcoming is None:
            return self._latest is not None and self._store_alone(results, self._latest)
        try:
            self._told = upcoming, None if self._ask(upcoming, results) else LOST
        except NotStored:  # the worker tries again, and says so; the message is acknowledged by itself
            return False
        except Exception as error:  # noqa: BLE001 - as above; the worker stores the results
            self._told = upcoming, _text(error)
            return False
        return True

    def _store_alone(self, results: Sequence[EncodedResult], delegate: bytes) -> bool:
        try:
            return self._ask((delegate, ""), results)
        except Exception:  # noqa: BLE001 - whatever it is, the worker stores them, and says what is wrong
            return False

    def _ask(self, delegated: Delegated, results: Sequence[EncodedResult] = ()) -> bool:
        delegate, tag = delegated
        known = self._delegates.get(delegate)
        if known is None:
            known = self._delegates[delegate] = pickle.loads(delegate)  # noqa: S301 - our own bytes
        return known.acknowledge(tag, results)


def _text(error: Exception) -> bytes:
    return preview(error).encode(errors="replace")
