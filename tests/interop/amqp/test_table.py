"""What must hold on Redis must hold on RabbitMQ: the same tests, in the same directions."""

from tests.interop.test_calls import (
    test_a_compressed_body_is_read,
    test_a_date_and_bytes_keep_their_type_both_ways,
    test_a_retried_task_keeps_its_id_and_counts,
    test_a_task_that_gives_up_raises_its_last_reason,
    test_a_wrong_call_is_a_failure_that_the_caller_sees,
    test_an_exception_class_of_the_application_is_raised_again,
    test_an_exception_of_the_language_is_raised_again,
    test_arguments_arrive_as_they_were_sent,
    test_id_queue_and_headers_are_seen_inside_the_task,
    test_moments_amounts_and_uuids_keep_their_type_both_ways,
    test_none_is_a_value,
    test_progress_is_seen_while_the_task_runs,
    test_the_caller_may_choose_the_id,
)
from tests.interop.test_chains import *  # noqa: F403 - a table is taken whole
from tests.interop.test_links import *  # noqa: F403
from tests.interop.test_task_objects import *  # noqa: F403
from tests.interop.test_times import (
    test_a_countdown_is_waited_for,
    test_a_queue_is_first_in_first_out,
    test_a_queue_of_its_own_is_served_alone,
    test_a_task_runs_before_it_expires,
    test_an_eta_is_waited_for_in_any_zone,
)

__all__ = [
    "test_a_compressed_body_is_read",
    "test_a_countdown_is_waited_for",
    "test_a_date_and_bytes_keep_their_type_both_ways",
    "test_a_queue_is_first_in_first_out",
    "test_a_queue_of_its_own_is_served_alone",
    "test_a_retried_task_keeps_its_id_and_counts",
    "test_a_task_runs_before_it_expires",
    "test_a_task_that_gives_up_raises_its_last_reason",
    "test_a_wrong_call_is_a_failure_that_the_caller_sees",
    "test_an_eta_is_waited_for_in_any_zone",
    "test_an_exception_class_of_the_application_is_raised_again",
    "test_an_exception_of_the_language_is_raised_again",
    "test_arguments_arrive_as_they_were_sent",
    "test_id_queue_and_headers_are_seen_inside_the_task",
    "test_moments_amounts_and_uuids_keep_their_type_both_ways",
    "test_none_is_a_value",
    "test_progress_is_seen_while_the_task_runs",
    "test_the_caller_may_choose_the_id",
]
