"""``python -m tests.chaos``: the long runs, and what came of them."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence

from tests.beat.chaos import KINDS
from tests.beat.chaos import run as run_ticks
from tests.chaos.places import Place, PostgresPlace, RabbitPlace, RedisPlace
from tests.chaos.plan import Plan
from tests.chaos.run import Report, run
from tests.chaos.trials import FULL, SMALL, TRIALS, Sizes
from tests.schedule.chaos import run as run_clocks

SHOWN = 20
PLACES: Mapping[str, Callable[[], Place]] = {
    "redis": RedisPlace,
    "rabbitmq": RabbitPlace,
    "postgres": PostgresPlace,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        choices=[[], *RUNS],
        default=[],
        help="tasks: workers are killed and cut off; ticks: processes that tick periodic tasks are; clocks: crontabs"
        " around every change of clocks, against a walk over every minute (default: all)",
    )
    parser.add_argument(
        "--broker", choices=KINDS, help="the server (default: redis for tasks, each for ticks)"
    )
    parser.add_argument("--seed", type=int, default=1, help="what goes wrong, and when (default: 1)")
    parser.add_argument("--tasks", type=int, default=20_000, help="calls to send (default: 20000)")
    parser.add_argument("--entries", type=int, default=200, help="periodic tasks (default: 200)")
    parser.add_argument(
        "--count", type=int, default=20, help="crontabs for each change of clocks (default: 20)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help="how long trouble is made (default: 60 for tasks, 180 for ticks on each server)",
    )
    parser.add_argument(
        "--trial",
        action="append",
        choices=["all", *TRIALS],
        help="on PostgreSQL: one fault at a time, in full size, instead of all at random; may be repeated",
    )
    parser.add_argument("--small", action="store_true", help="with --trial: a few seconds each")
    given = parser.parse_args()
    if given.trial and given.broker != "postgres":
        parser.error("--trial is for --broker postgres")
    if "tasks" in given.what and given.broker not in (None, *PLACES):
        parser.error(f"tasks are for --broker {', '.join(PLACES)}")
    if given.trial:
        return max(try_out(name, SMALL if given.small else FULL) for name in names(given.trial))
    some = RUNS if given.broker in (None, *PLACES) else ["ticks"]
    return max(RUNS[name](given) for name in given.what or some)


def names(chosen: Sequence[str]) -> Sequence[str]:
    return list(TRIALS) if "all" in chosen else chosen


def try_out(name: str, sizes: Sizes) -> int:
    print(f"--- {name}")
    report = asyncio.run(TRIALS[name](sizes))
    show(report)
    return 1 if report.problems else 0


def run_tasks(given: argparse.Namespace) -> int:
    """Kill workers and cut connections, look for lost and repeated tasks."""
    plan = Plan(given.seed, given.tasks, given.seconds or 60.0)
    report = asyncio.run(run(plan, PLACES[given.broker or "redis"]()))
    show(report)
    return 1 if report.problems else 0


RUNS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "tasks": run_tasks,
    "ticks": run_ticks,
    "clocks": run_clocks,
}


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
