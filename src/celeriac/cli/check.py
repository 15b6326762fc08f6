"""One line of ``celeriac doctor``."""

from __future__ import annotations

from typing import Literal

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One line of the report.

    :param fix: what to do about it.
    """

    level: Literal["ok", "warn", "fail"]
    about: str
    text: str
    fix: str = ""
