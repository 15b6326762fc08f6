"""The long form of the comparison with a walk over every minute."""

from __future__ import annotations

from argparse import Namespace

from tests.schedule.brute import ZONES
from tests.schedule.expressions import differences


def run(given: Namespace) -> int:
    """Compare crontabs around every change of 2024 to 2030 in 20 zones; print the differences."""
    wrong = 0
    for zone in ZONES:
        found = differences(zone, given.seed, given.count, 2024, 2030)
        print(f"crontabs in {zone}: {len(found)} differences", *found, sep="\n  ", flush=True)
        wrong += len(found)
    return 1 if wrong else 0
