"""Names of tasks that were given none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def task_name(function: Callable[..., Any]) -> str:
    """Return ``module.function``. A script's module is named after its file, as in a program that imports it."""
    module = getattr(function, "__module__", None) or "celeriac"
    name = getattr(function, "__name__", type(function).__name__)
    return f"{_main_name() if module == '__main__' else module}.{name}"


def _main_name() -> str:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"
