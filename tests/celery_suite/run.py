"""``python -m tests.celery_suite.run``: the whole of Celery's integration suite against celeriac's workers.

It fails where a test fails that passes with Celery's own worker, run as a process in the same harness: those are
named in a file for each broker, ``baseline_redis.txt``, to which ``--baseline`` adds. ``departures.txt`` has the
exceptions, each with its reason, which are not run; those of one broker alone have a file of its name, such as
``departures_redis.txt``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.celery_suite.harness import (
    BROKERS,
    CHORDS,
    ROOT,
    WORKERS,
    baseline,
    departures,
    expected,
    run,
    unpack,
)

AT_ONCE = 3
"""How many parts of the suite run at once, each with servers and a worker of its own: most tests wait."""


def main() -> int:
    """Run what the command line names; return 1 where a test of the baseline did not pass."""
    given = arguments()
    place = Path(os.environ.get("CELERY_SUITE", ROOT / ".celery-suite"))
    directory = unpack(place)
    failed = 0
    for broker in given.broker or [one for one in BROKERS if baseline(one).exists()]:
        for worker in ["celery"] if given.baseline else given.worker or ["processes", "threads"]:
            found = whole(directory, worker, broker, place, given.only)
            if given.baseline:
                add_to_baseline(broker, found)
            else:
                failed += compared(directory, worker, broker, place, found, whole=not given.only)
    return 1 if failed else 0


def add_to_baseline(broker: str, found: Mapping[str, str]) -> None:
    """Add what passed to the baseline. Nothing is taken out: on a busy machine some tests are too late."""
    passed = {name for name, outcome in found.items() if outcome == "passed"}
    known = expected(broker) if baseline(broker).exists() else set()
    baseline(broker).write_text("".join(f"{name}\n" for name in sorted(known | passed)))
    print(
        f"{broker}: {len(passed)} pass with Celery's worker, {len(passed - known)} of them for the first time"
    )


def compared(
    directory: Path, worker: str, broker: str, place: Path, found: Mapping[str, str], *, whole: bool
) -> int:
    """Print what of the baseline did not pass, which is run again once; return how many did not pass then either."""
    wanted = expected(broker) if whole else expected(broker) & found.keys()
    failed = sorted(name for name in wanted if found.get(name) != "passed")
    print(
        f"{broker}, {worker}: {len(wanted) - len(failed)} of {len(wanted)} of the baseline pass", flush=True
    )
    again = retried(directory, worker, broker, place, failed, found)
    known = departures(broker)
    for name in failed:
        outcome = "passes when it is run again" if name in again else found.get(name, "not run")
        print(f"  {name}: {outcome}{f' ({known[name]})' if name in known else ''}", flush=True)
    return sum(name not in again and name not in known for name in failed)


def whole(directory: Path, worker: str, broker: str, place: Path, only: Sequence[str]) -> dict[str, str]:
    """Run every file of the suite, in parts at the same time; return the outcome of each test."""
    left_out = (
        []
        if worker == "celery"
        else [f"--deselect=t/integration/{in_file(name)}" for name in departures(broker)]
    )
    parts = {
        name: [*part, *left_out] for name, part in divided(directory).items() if not only or name in only
    }
    found: dict[str, str] = {}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for outcomes in threads.map(partial(run_part, directory, worker, broker, place), parts.items()):
            found |= outcomes
    return found


def retried(
    directory: Path, worker: str, broker: str, place: Path, failed: Sequence[str], found: Mapping[str, str]
) -> list[str]:
    """Run the files and classes of failed tests again; return the tests that pass now: a busy machine fails some."""
    chosen = sorted({in_file(name) for name in failed if name in found})
    if not chosen:
        return []
    outcomes = run(directory, worker, broker, chosen, place / f"{broker}-{worker}-again.xml")
    return [name for name in failed if outcomes.get(name) == "passed"]


def in_file(name: str) -> str:
    """Return pytest's name of a test for its name in a report: ``test_file.test_class.test_name[a.b]``."""
    plain, bracket, parameters = name.partition("[")
    file, *rest = plain.split(".")
    return "::".join([f"{file}.py", *rest]) + bracket + parameters


def divided(directory: Path) -> dict[str, Sequence[str]]:
    """Return the suite in parts, as arguments of pytest: chords take as long as all other workflows."""
    files = sorted(path.name for path in (directory / "t" / "integration").glob("test_*.py"))
    rest = [name for name in files if name not in {"test_canvas.py", "test_tasks.py"}]
    return {
        "tasks": ["test_tasks.py"],
        "chords": [CHORDS],
        "canvas": ["test_canvas.py", f"--deselect=t/integration/{CHORDS}"],
        "rest": rest,
    }


def run_part(
    directory: Path, worker: str, broker: str, place: Path, part: tuple[str, Sequence[str]]
) -> dict[str, str]:
    """Run one part; return the outcome of each test."""
    name, chosen = part
    return run(directory, worker, broker, chosen, place / f"{broker}-{worker}-{name}.xml")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.celery_suite.run", description=__doc__)
    parser.add_argument(
        "--worker", action="append", choices=list(WORKERS), help="this worker; may be repeated"
    )
    parser.add_argument("--broker", action="append", choices=BROKERS, help="this broker; may be repeated")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="tasks, chords, canvas, rest"
    )
    parser.add_argument(
        "--baseline", action="store_true", help="run Celery's own worker, and add what passes"
    )
    given = parser.parse_args()
    for broker in () if given.baseline else given.broker or ():
        if not baseline(broker).exists():
            parser.error(
                f"there is no baseline for {broker} yet: write one with --baseline --broker {broker}"
            )
    return given


if __name__ == "__main__":
    sys.exit(main())
