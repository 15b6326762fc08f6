"""Marks messages that are to be published once as copies.

Rules: pure. RabbitMQ cannot note a key in the step of a publish, so the worker that takes a copy decides whether it is
the first. A message keeps its name in every try, since its id does not change; each try has a number of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import msgspec

from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.once import Copy


def as_copies(key: str, messages: Sequence[tuple[Envelope, Route]]) -> list[tuple[Envelope, Route]]:
    """Return the messages as copies of a number that no other try has."""
    number = os.urandom(12).hex()
    seen: Counter[str] = Counter()
    copies = []
    for envelope, route in messages:
        name = envelope.correlation_id or ""
        seen[name] += 1
        if seen[name] > 1:
            name += f".{seen[name]}"
        copies.append((msgspec.structs.replace(envelope, copy=Copy(key, name, number)), route))
    return copies
