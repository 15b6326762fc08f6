"""Which event loop a command runs on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from celeriac.errors import ConfigError

try:
    import uvloop
except ImportError:  # an optional extra
    FAST: Callable[[], asyncio.AbstractEventLoop] | None = None
else:
    FAST = uvloop.new_event_loop

logger = logging.getLogger(__name__)

LOOPS = ("auto", "asyncio", "uvloop")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop; ``auto`` takes uvloop where it is installed.

    Raises ``ConfigError`` where uvloop is asked for and is not installed.
    """
    if name == "uvloop" and FAST is None:
        raise ConfigError(
            "--loop uvloop needs uvloop, which is not installed: pip install 'celeriac[uvloop]'"
        )
    make = asyncio.new_event_loop if name == "asyncio" or FAST is None else FAST
    return partial(_make_quiet, make)


def _make_quiet(make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    """Return a loop that prints no traceback of a connection that was given up while it was being made.

    uvloop leaves the error of such a handshake in a future that nobody can ask for it. The error that matters is told
    by whoever wanted the connection.
    """
    loop = make()
    loop.set_exception_handler(_tell)
    return loop


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), OSError) and "future" in context and "task" not in context:
        logger.debug("%s", context.get("message"), exc_info=context["exception"])
        return
    loop.default_exception_handler(context)
