"""Find the names that tests and benchmarks import from celeriac and that are not there (any more).

The type checker reads the package alone, and to collect all tests costs more than all other checks together.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "celeriac"
READERS = ("tests/*.py", "bench/*.py")


def names_in(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, module and name of each import from the package; no name where the module itself is imported.

    A name that is patched by its path in a text counts too.
    """
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_ours(node.module or ""):
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "setattr" and node.args:
            target = getattr(node.args[0], "value", None)
            if isinstance(target, str) and _is_ours(
                target
            ):  # monkeypatch.setattr("celeriac.module.name", ...)
                module, _, name = target.rpartition(".")
                yield node.lineno, module, name


def is_there(module: str, name: str) -> bool:
    """Whether the module can be imported and has the name, as its own or as a module in it."""
    try:
        found = importlib.import_module(module)  # noqa: TID251 - whether it is there is the question
    except ImportError:
        return False
    if not name or name == "*" or hasattr(found, name):
        return True
    return is_there(f"{module}.{name}", "")


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def main() -> int:
    """Print what is missing; return 1 if anything is."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *READERS],
        capture_output=True,
        text=True,
        check=True,
    )
    known: dict[tuple[str, str], bool] = {}
    missing = 0
    for file in map(Path, listed.stdout.splitlines()):
        for line, module, name in names_in(file) if file.exists() else ():
            there = known.get((module, name))
            if there is None:
                there = known[module, name] = is_there(module, name)
            if not there:
                print(f"{file}:{line}: {module} has no {name or 'such module'}")
                missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
