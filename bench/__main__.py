"""``python -m bench``: measure, check, print the table."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench.against import COMPARED, compare
from bench.against import show as show_against
from bench.chart import write_chart
from bench.ground import Ground, Molds
from bench.machine import Machine
from bench.measures import MEASURES
from bench.plan import FULL, QUICK, Plan
from bench.report import show, write_into
from bench.workers import WorkerFailed


def main() -> int:
    """Return 0 when everything was measured and checked, whatever the numbers; 1 when a worker failed."""
    given = arguments()
    machine = Machine()
    plan = Plan(QUICK if given.quick else FULL, Molds(), machine)
    with Ground(plan.molds) as ground:
        redis_version = ground.version()
    try:
        if given.against:
            return against(plan, given, redis_version)
        rows = [row for name in given.only or MEASURES for row in MEASURES[name](plan)]
    except (WorkerFailed, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    description = machine.describe(redis_version)
    show(description, rows)
    if given.json:
        whole = {"machine": description, "quick": given.quick, "rows": [row.as_json() for row in rows]}
        given.json.write_text(json.dumps(whole, indent=1) + "\n")
    if given.page:
        write_into(given.page, description, rows)
    if given.chart:
        write_chart(given.chart, description, rows)
    return 0


def against(plan: Plan, given: argparse.Namespace, redis_version: str) -> int:
    """Measure this tree beside an earlier commit."""
    rows = compare(plan, given.against, given.only or COMPARED, given.pairs)
    description = plan.machine.describe(redis_version)
    show_against(description, given.against, rows)
    if given.json:
        whole = {"machine": description, "against": given.against, "rows": [row.as_json() for row in rows]}
        given.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure celeriac beside Celery.")
    parser.add_argument(
        "--quick", action="store_true", help="one short round: about three minutes, and less certain"
    )
    parser.add_argument(
        "--only", action="append", choices=list(MEASURES), help="measure only this; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="put the table between the marks of this page"
    )
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="draw the rows with a side of Celery, as SVG"
    )
    parser.add_argument(
        "--against", metavar="COMMIT", help="measure this tree and that commit in turns, and print the ratios"
    )
    parser.add_argument(
        "--pairs", type=int, default=9, metavar="N", help="turns of each with --against [default: 9]"
    )
    given = parser.parse_args()
    if given.against and "guarantees" in (given.only or ()):
        parser.error(
            "guarantees replaces parts of the package by name: it cannot be measured of another commit"
        )
    return given


if __name__ == "__main__":
    sys.exit(main())
