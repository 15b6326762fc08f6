"""Names what is to be published once: RabbitMQ can keep no key in the step of a publish, so who takes it decides.

Rules: pure. A message keeps its name in every try, for its id does not change; the number is of the try.
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
