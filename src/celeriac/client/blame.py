"""Which line of the user's code an error came from."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

OWN = str(Path(__file__).parent.parent)


def last_line(error: BaseException) -> str:
    """Return where the user's code went wrong, or called what did.

    An app that is installed, as in a container, lies beside the libraries, so of these the last line has to do.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", OWN))
    ]
    known = sysconfig.get_paths()
    libraries = tuple(known[kind] + os.sep for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    frames = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
