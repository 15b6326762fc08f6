"""Which event loop a command runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from celeriac.errors import ConfigError

try:
    import uvloop
except ImportError:  # an optional extra
    FAST: Callable[[], asyncio.AbstractEventLoop] | None = None
else:
    FAST = uvloop.new_event_loop

LOOPS = ("auto", "asyncio", "uvloop")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop, ``None`` for asyncio's own; ``auto`` takes uvloop where it is installed.

    Raises ``ConfigError`` where uvloop is asked for and is not installed.
    """
    if name == "uvloop" and FAST is None:
        raise ConfigError(
            "--loop uvloop needs uvloop, which is not installed: pip install 'celeriac[uvloop]'"
        )
    return None if name == "asyncio" else FAST
