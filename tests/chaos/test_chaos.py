"""A short chaos run, and the verdict's own judgement."""

from dataclasses import replace
from weakref import ReferenceType

from celery.signals import task_received

from tests.chaos import celery_tasks, tasks
from tests.chaos.ledger import Run
from tests.chaos.places import RedisPlace
from tests.chaos.plan import Plan, PlannedCall
from tests.chaos.run import run
from tests.chaos.trials import SMALL, TRIALS, ran_again_late
from tests.chaos.verdict import Trouble, Verdict, judge

QUICK, RETRY = PlannedCall("a", "chaos.quick", None), PlannedCall("b", "chaos.retry", None)


def test_the_sender_records_nothing():
    """It imports the tasks, as does every process that collects these tests; all of them hear Celery's signals."""
    assert not tasks.ledger.is_kept
    heard_by = [found() for _, found in task_received.receivers or () if isinstance(found, ReferenceType)]
    assert celery_tasks.receive not in heard_by


async def test_no_task_is_lost_and_none_runs_twice_without_excuse():
    report = await run(Plan(seed=1, tasks=2000, seconds=8, restarts=1), RedisPlace())
    assert not report.problems, "\n".join(report.problems)
    assert report.verdict.runs >= 2000
    assert 0 < report.by_celery < report.verdict.runs
    assert report.mishaps


def judged(
    call: PlannedCall,
    *runs: Run,
    deaths: dict[int, tuple[float, float]] | None = None,
    outages: tuple[tuple[float, float], ...] = (),
    uncertain: dict[str, int] | None = None,
    received: tuple[float, ...] = (),
) -> Verdict:
    held = {(call.id, 0): received}
    return judge([call], list(runs), Trouble(deaths or {}, outages, uncertain or {}, held))


def test_a_call_that_never_ended_is_lost():
    assert judged(QUICK).lost
    assert judged(QUICK, Run("a", 0, 1, 5.0)).lost
    assert judged(RETRY, Run("b", 0, 1, 5.0, 5.1)).lost
    verdict = judged(QUICK, Run("a", 0, 1, 5.0, 5.1))
    assert not verdict.lost
    assert not verdict.duplicates


def test_what_ran_twice_is_a_fault_unless_there_is_an_excuse():
    twice = Run("a", 0, 1, 5.0, 5.1), Run("a", 0, 2, 7.0, 7.1)
    assert judged(QUICK, *twice).duplicates
    assert not judged(QUICK, *twice, deaths={1: (5.05, 5.05)}).duplicates
    assert not judged(QUICK, *twice, outages=((4.0, 5.05),)).duplicates
    assert not judged(QUICK, *twice, uncertain={"a": 1}).duplicates


def test_others_may_take_over_before_it_is_known_that_a_worker_is_gone():
    twice = Run("a", 0, 1, 5.0), Run("a", 0, 2, 5.3, 5.4)
    assert not judged(QUICK, *twice, deaths={1: (5.1, 6.0)}).duplicates
    assert judged(QUICK, *twice, deaths={1: (5.35, 6.0)}).duplicates, "it lived when the second run began"


def test_what_celery_held_too_long_is_restored_once_and_marked():
    first, marked = Run("a", 0, 1, 20.0, 20.1), Run("a", 0, 2, 20.5, 20.6, redelivered=True)
    assert not judged(QUICK, first, marked, received=(5.0,)).duplicates
    assert not judged(QUICK, Run("a", 0, 1, 21.0, 21.1), marked, received=(5.0,)).duplicates, "it ran late"
    assert judged(QUICK, first, marked).duplicates, "Celery never had it"
    assert judged(QUICK, first, marked, received=(8.0,)).duplicates, "before Celery would have restored it"
    assert judged(QUICK, first, Run("a", 0, 2, 20.5, 20.6), received=(5.0,)).duplicates, (
        "not restored: sent twice"
    )
    third = Run("a", 0, 3, 22.0, 22.1, redelivered=True)
    assert judged(QUICK, first, marked, third, received=(5.0,)).duplicates, "restored once, ran thrice"


def test_celery_is_given_what_a_worker_that_was_cut_off_still_held():
    twice = [Run("a", 0, 1, 5.0, 5.1), Run("a", 0, 2, 5.2, 5.3)]

    def is_fault(ours: set[int], *cuts: tuple[float, float]) -> bool:
        return bool(judge([QUICK], twice, Trouble({}, (), {}, {}, cuts, ours)).duplicates)

    assert not is_fault({1}, (5.05, 5.05))
    assert not is_fault({2}, (5.05, 5.05))
    assert is_fault({1, 2}, (5.05, 5.05)), "no Celery worker took part"
    assert is_fault({1}, (3.0, 3.5)), "no line was cut then"
    assert is_fault({1})


def test_no_excuse_that_has_nothing_to_do_with_it():
    twice = Run("a", 0, 1, 5.0, 5.1), Run("a", 0, 2, 9.0, 9.1)
    assert judged(QUICK, *twice, deaths={2: (5.05, 5.05)}).duplicates, "another worker died"
    assert judged(QUICK, *twice, deaths={1: (8.0, 8.0)}).duplicates, "it died long after the run"
    assert judged(QUICK, *twice, deaths={1: (9.5, 9.5)}).duplicates, "it died after the second run began"
    assert judged(QUICK, *twice, outages=((1.0, 2.0), (8.0, 9.0))).duplicates, "the server was up"
    assert judged(QUICK, *twice, uncertain={"b": 1}).duplicates, "another call was sent twice"
    assert judged(QUICK, *twice, Run("a", 0, 3, 9.5, 9.6), uncertain={"a": 1}).duplicates, "twice, not thrice"


def test_a_retry_is_sent_once():
    runs = Run("b", 0, 1, 5.0, 5.1), Run("b", 1, 1, 5.2, 5.3), Run("b", 1, 2, 5.4, 5.5)
    assert judged(RETRY, *runs).duplicates
    assert not judged(RETRY, runs[0], Run("b", 0, 2, 5.0, 5.1), *runs[1:], uncertain={"b": 1}).duplicates


def test_a_run_that_nobody_asked_for():
    assert judged(QUICK, Run("a", 0, 1, 5.0, 5.1), Run("a", 1, 1, 6.0, 6.1)).duplicates


def test_what_a_killed_worker_was_at_runs_again_in_time_or_is_told_of():
    deaths = {1: (5.0, 5.2)}
    begun, soon, late = Run("a", 0, 1, 4.9, None), Run("a", 0, 2, 8.1, 8.2), Run("a", 0, 2, 8.3, 8.4)
    assert list(ran_again_late([begun, soon], deaths)) == []
    assert list(ran_again_late([begun, late], deaths)) == ["a ran again 3.1 s after its worker was killed"]


async def test_on_postgresql_a_killed_workers_tasks_run_again_soon():
    report = await TRIALS["kills"](replace(SMALL, tasks=100, seconds=1.0, kills=1))
    assert not report.problems, "\n".join(report.problems)
    assert report.verdict.runs >= 100
