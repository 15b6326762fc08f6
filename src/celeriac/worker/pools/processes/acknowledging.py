"""Acknowledges the message of a call in its child, before its function runs."""

from __future__ import annotations

import pickle

from celeriac.contracts.server import Delegate
from celeriac.wire.preview import preview

LOST = b""
"""Says that the worker did not hold the message any more."""


class Acknowledging:
    """The delegates of one child, which are unpickled once."""

    def __init__(self) -> None:
        self._delegates: dict[bytes, Delegate] = {}

    def refusal(self, delegate: bytes, tag: str) -> bytes | None:
        """Acknowledge a message; return why its call must not begin, ``None`` where it may."""
        try:
            known = self._delegates.get(delegate)
            if known is None:
                known = self._delegates[delegate] = pickle.loads(delegate)  # noqa: S301 - our own bytes
            return None if known.acknowledge(tag) else LOST
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker acknowledges the message then
            return preview(error).encode(errors="replace")
