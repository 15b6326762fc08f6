"""An asyncio-native client and worker for the Celery distributed task queue.

The public names are imported when the first of them is used: the command line starts without them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.public import *


def __getattr__(name: str) -> object:
    import celeriac.public

    public = celeriac.public
    if name != "__all__" and name not in public.__all__:
        from celeriac.porting import MODULE, missing

        raise missing(f"module {__name__!r}", name, MODULE)
    found = globals()[name] = getattr(public, name)
    return found


def __dir__() -> list[str]:
    import celeriac.public

    return sorted({*globals(), *celeriac.public.__all__})
