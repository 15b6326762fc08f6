"""What was found on looking at a broker or result store that works, and may harm all the same."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """Something that works, but not as it should.

    :param text: what it is, and what comes of it.
    :param fix: what to do about it.
    """

    text: str
    fix: str = ""
