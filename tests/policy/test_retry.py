"""When a failed task runs again, and after how long."""

import pytest

from celeriac import ConfigError, Retry
from celeriac.errors import TaskAborted
from celeriac.retry import Backoff


def test_max_attempts_counts_runs_the_first_included():
    policy = Retry(max_attempts=3)
    assert [policy.wants(ValueError(), attempt) for attempt in (1, 2, 3)] == [True, True, False]


def test_one_attempt_is_no_retry():
    assert not Retry(max_attempts=1).wants(ValueError(), 1)


def test_only_the_named_exceptions_and_never_those_ruled_out():
    policy = Retry(on=(OSError,), never=(FileNotFoundError,))
    assert policy.wants(ConnectionResetError(), 1)
    assert not policy.wants(ValueError(), 1)
    assert not policy.wants(FileNotFoundError(), 1)


def test_exceptions_that_end_programs_are_not_retried_unless_named():
    assert not Retry().wants(KeyboardInterrupt(), 1)
    assert Retry(on=(KeyboardInterrupt,)).wants(KeyboardInterrupt(), 1)


@pytest.mark.parametrize("on", [(SystemExit,), (BaseException,), (TaskAborted,)])
def test_a_task_that_exits_is_not_run_again_unless_that_is_named(on: tuple[type[BaseException], ...]):
    exits = TaskAborted("the task raised SystemExit(1,)")
    exits.raised = SystemExit
    assert not Retry().wants(exits, 1)
    assert Retry(on=on).wants(exits, 1)
    assert not Retry(on=on, never=(SystemExit, TaskAborted)).wants(exits, 1)


def test_delays_grow_by_the_factor_up_to_the_cap():
    policy = Retry(backoff=2.0, factor=3.0, cap=20.0, jitter=False)
    assert [policy.delay(attempt, lambda: 0.0) for attempt in (1, 2, 3, 4)] == [2.0, 6.0, 18.0, 20.0]


def test_a_delay_too_big_for_a_float_is_the_cap():
    assert Retry(cap=60.0, jitter=False).delay(100_000, lambda: 0.0) == 60.0


def test_jitter_takes_between_half_and_the_whole():
    policy = Retry(backoff=8.0)
    assert policy.delay(1, lambda: 0.0) == 4.0
    assert policy.delay(1, lambda: 0.5) == 6.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": OSError},
        {"on": (int,)},
        {"never": ("OSError",)},
        {"max_attempts": 0},
        {"max_attempts": 2.5},
        {"max_attempts": True},
        {"backoff": -1},
        {"backoff": "2s"},
        {"factor": 0.5},
        {"cap": float("nan")},
    ],
)
def test_a_bad_value_is_named(wrong):
    with pytest.raises(ConfigError, match=rf"Retry\({next(iter(wrong))}="):
        Retry(**wrong)


def test_pauses_double_up_to_the_longest_with_jitter_and_begin_anew():
    backoff = Backoff(0.1, 0.5)
    for _ in range(2):
        pauses = [backoff.pause() for _ in range(5)]
        for pause, whole in zip(pauses, [0.1, 0.2, 0.4, 0.5, 0.5], strict=True):
            assert whole / 2 <= pause <= whole
        backoff.reset()
    assert len({Backoff(1.0, 1.0).pause() for _ in range(20)}) > 1
