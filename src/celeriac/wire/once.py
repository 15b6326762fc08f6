"""What is published once, though several may try: the next step of a task that was run twice, the body of a chord.

Rules: it is published under a key. A broker that cannot keep the key sends each try as a copy that says so, and who
takes a second copy drops it.
"""

from __future__ import annotations

import msgspec

ONCE = 86400
"""Seconds for which it is known what was published, or taken, under a key."""

ONCE_SETTLED = 60
"""The same, from when the message that it followed from is settled: for a worker that stood still meanwhile."""

COPY_HEADER = "x-celeriac-copy"
"""Names the copy that a message is."""


class Copy(msgspec.Struct, frozen=True, gc=False):
    """One of perhaps several copies of a message.

    :param key: under which it was to be published once.
    :param name: tells the message from the others under this key.
    :param number: tells the copy from other copies; what was published together has the same.
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
