"""Messages that are published once, though several workers may try, such as the next step of a task that ran twice.

Rules: such a message is published under a key. A broker that cannot keep keys sends each try as a marked copy, and the
worker that takes a second copy drops it.
"""

from __future__ import annotations

import msgspec

ONCE = 86400
"""Seconds for which it is known what was published, or taken, under a key."""

ONCE_SETTLED = 60
"""Seconds for which a key is kept after the message before it was settled: a worker that was suspended may try yet."""

COPY_HEADER = "x-celeriac-copy"
"""The header that marks a message as a copy."""


class Copy(msgspec.Struct, frozen=True, gc=False):
    """One of perhaps several copies of a message.

    :param key: under which it was to be published once.
    :param name: distinguishes the message from the others under this key.
    :param number: distinguishes the copy from other copies; what was published together has the same.
    """

    key: str
    name: str
    number: str

    def to_text(self) -> str:
        """Return it as it travels in a header."""
        return _write(self).decode()


_LONGEST = 2000
"""Characters of a header that may name a copy; ours has far fewer."""

_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Copy).decode


def read_copy(text: object) -> Copy | None:
    """Return the copy that a header names; what names none is a message like any other."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        return _read(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
