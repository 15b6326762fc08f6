"""A transport of Sentry that keeps what it is given."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport as Base

WAIT = 60.0


class Transport(Base):
    """Keeps the items of all envelopes."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            self.items.append({"kind": item.type, **json.loads(item.payload.get_bytes())})

    def check_ins(self, slug: str) -> list[dict[str, Any]]:
        """The check-ins of a monitor, in order."""
        return [one for one in self.items if one["kind"] == "check_in" and one["monitor_slug"] == slug]

    def transactions(self, name: str) -> list[dict[str, Any]]:
        """The transactions of this name."""
        return [one for one in self.items if one["kind"] == "transaction" and one["transaction"] == name]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what is to be sent."""
        async with asyncio.timeout(WAIT):
            while not holds():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
