"""Run every search of this folder in turn: ``make fuzz``, ``python -m tests.fuzz --help``.

A search is a module named ``*_fuzz`` with a function ``search(seed, seconds)``: it tries inputs for so long, repeatable
by its seed, raises where a promise is broken, and returns how many inputs it tried.
"""

import argparse
import importlib
import pkgutil
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

Search = Callable[[int, float], int]


class Found(msgspec.Struct):
    """A module that searches."""

    name: str
    about: str
    search: Search


def find() -> list[Found]:
    """Return every search of this folder, by name."""
    found = []
    for module in sorted(pkgutil.iter_modules([str(Path(__file__).parent)]), key=lambda module: module.name):
        if module.name.endswith("_fuzz") and not module.name.startswith("test_"):
            loaded = importlib.import_module(f"tests.fuzz.{module.name}")
            about = (loaded.__doc__ or "").strip().splitlines()[0]
            found.append(Found(module.name.removesuffix("_fuzz"), about, loaded.search))
    return found


def parse(arguments: Sequence[str], searches: Sequence[Found]) -> argparse.Namespace:
    names = [search.name for search in searches]
    about = "\n".join(f"  {search.name:12} {search.about}" for search in searches)
    parser = argparse.ArgumentParser(
        prog="make fuzz",
        description="Look for inputs that break a promise.",
        epilog=f"what runs:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="searches to run; all when none is named")
    parser.add_argument("--seed", type=int, help="repeats a run; a new one when missing")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search (default: %(default)g)")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.names) - set(names)):
        parser.error(f"no search is named {', '.join(unknown)}; there are {', '.join(names)}")
    return asked


def main(arguments: Sequence[str]) -> None:
    searches = find()
    asked = parse(arguments, searches)
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    print(f"seed {seed} (again with: make fuzz ARGS='--seed {seed}')", flush=True)
    for search in searches:
        if not asked.names or search.name in asked.names:
            print(
                f"{search.name}: {search.search(seed, asked.seconds)} inputs, no promise broken", flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
