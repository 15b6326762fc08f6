"""Keys that another chose, as PostgreSQL can keep them: ids of tasks and of chords come in messages."""

from __future__ import annotations

from hashlib import blake2b

from celeriac.wire.names import is_text

_LONGEST = 500
"""Characters of a key; an index refuses what has more than 2700 bytes."""


def storable_key(key: str) -> str:
    """Return the key, or its hash where PostgreSQL could not keep it: it has a NUL, no UTF-8 form, or is too long."""
    if len(key) <= _LONGEST and "\0" not in key and is_text(key):
        return key
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
