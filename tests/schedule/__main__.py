"""The long form of the comparison with a walk over every minute: ``make schedules``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from tests.schedule.brute import ZONES
from tests.schedule.expressions import differences


def main() -> int:
    """Compare crontabs around every change of 2024 to 2030 in 20 zones; print the differences."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20, help="crontabs for each change of clocks")
    chosen = parser.parse_args()
    wrong = 0
    for zone in ZONES:
        found = differences(zone, chosen.seed, chosen.count, 2024, 2030)
        print(f"{zone}: {len(found)} differences", *found, sep="\n  ", flush=True)
        wrong += len(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
