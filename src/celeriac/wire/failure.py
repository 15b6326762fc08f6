"""An exception as Celery stores it, without ever importing what it reads."""

from __future__ import annotations

from typing import Any

import msgspec


class Failure(msgspec.Struct, frozen=True):
    """The stored form of an exception: qualified class name, arguments, module."""

    exc_type: str
    exc_message: list[Any] | str = []
    exc_module: str | None = None
