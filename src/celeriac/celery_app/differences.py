"""What is said of a Celery app before its worker starts, and by ``celeriac doctor``."""

from __future__ import annotations

from typing import Literal

import msgspec


class Departure(msgspec.Struct, frozen=True):
    """One thing about an app that is not as in Celery.

    :param level: ``warn`` says that the worker goes on; ``refuse`` that it does not start, since it would do harm.
    :param about: the setting, task or part of the app.
    :param text: what is so, and what to do about it.
    """

    level: Literal["warn", "refuse"]
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"
