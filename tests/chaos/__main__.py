"""``python -m tests.chaos``: a chaos run, and what came of it."""

import argparse
import asyncio
import sys

from tests.chaos.plan import Plan
from tests.chaos.run import Report, run

SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what goes wrong, and when (default: 1)")
    parser.add_argument("--tasks", type=int, default=20_000, help="calls to send (default: 20000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long trouble is made (default: 60)")
    given = parser.parse_args()
    report = asyncio.run(run(Plan(given.seed, given.tasks, given.seconds)))
    show(report)
    return 1 if report.problems else 0


def show(report: Report) -> None:
    plan, verdict = report.plan, report.verdict
    head = f"seed {plan.seed}: {plan.tasks} calls, {verdict.runs} runs in {report.seconds:.0f} s"
    print(f"{head}, {report.by_celery} by Celery")
    for name, count in sorted(report.mishaps.items()):
        print(f"  {count:4} x {name}")
    print(f"lost: {len(verdict.lost)}; ran twice without excuse: {len(verdict.duplicates)}")
    for excuse, count in verdict.excused.items():
        print(f"  {count:4} ran again because {excuse}")
    print(f"left in the broker: {len(report.left) or 'nothing'}")
    for problem in report.problems[:SHOWN]:
        print(f"  {problem}")


if __name__ == "__main__":
    sys.exit(main())
