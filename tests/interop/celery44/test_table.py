"""What must hold with Celery 5 must hold with Celery 4.4: the same tests, in both directions."""

from tests.interop.test_calls import (
    test_a_compressed_body_is_read,
    test_a_retried_task_keeps_its_id_and_counts,
    test_a_task_that_gives_up_raises_its_last_reason,
    test_an_exception_class_of_the_application_is_raised_again,
    test_an_exception_of_the_language_is_raised_again,
    test_arguments_arrive_as_they_were_sent,
    test_none_is_a_value,
    test_progress_is_seen_while_the_task_runs,
    test_the_caller_may_choose_the_id,
)
from tests.interop.test_chains import *  # noqa: F403 - a table is taken whole
from tests.interop.test_links import *  # noqa: F403
from tests.interop.test_times import (
    test_a_countdown_is_waited_for,
    test_a_task_runs_before_it_expires,
    test_a_task_that_expired_before_it_ran_is_revoked,
    test_an_eta_is_waited_for_in_any_zone,
    test_lower_numbers_run_first_on_redis,
)

__all__ = [
    "test_a_compressed_body_is_read",
    "test_a_countdown_is_waited_for",
    "test_a_retried_task_keeps_its_id_and_counts",
    "test_a_task_runs_before_it_expires",
    "test_a_task_that_expired_before_it_ran_is_revoked",
    "test_a_task_that_gives_up_raises_its_last_reason",
    "test_an_eta_is_waited_for_in_any_zone",
    "test_an_exception_class_of_the_application_is_raised_again",
    "test_an_exception_of_the_language_is_raised_again",
    "test_arguments_arrive_as_they_were_sent",
    "test_lower_numbers_run_first_on_redis",
    "test_none_is_a_value",
    "test_progress_is_seen_while_the_task_runs",
    "test_the_caller_may_choose_the_id",
]
