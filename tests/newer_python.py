"""A Python that Django 6 runs on, where this machine has one; what the tests run with may be older."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

NAMES = ("python3.12", "python3.13")


@cache
def newer_python() -> str | None:
    """This Python, one of the path, or one of pyenv's: the first that starts and is 3.12 or newer."""
    return next((path for path in _candidates() if _runs(path)), None)


def said_of_django_6() -> str:
    """What the head of a test run says of it."""
    found = newer_python()
    return f"Django 6: tested by {found}" if found else "Django 6: not tested, no Python 3.12 was found"


def _candidates() -> Iterator[str]:
    if sys.version_info >= (3, 12):
        yield sys.executable
    roots = dict.fromkeys(filter(None, (os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv"))))
    for name in NAMES:
        yield from (
            str(found) for root in roots for found in sorted(Path(root).glob(f"versions/*/bin/{name}"))
        )
        if (found := shutil.which(name)) is not None:
            yield found


def _runs(python: str) -> bool:
    """Whether it starts, and can make virtualenvs; one of pyenv's starts only where that version is chosen."""
    return (
        subprocess.run([python, "-c", "import ensurepip, venv"], check=False, capture_output=True).returncode
        == 0
    )
