"""What a running task may know and do."""

import logging

import pytest

from celeriac import Context, Ignore, Reject
from celeriac.errors import RetryRequested
from celeriac.wire.task import TaskMessage


@pytest.fixture
def message():
    return TaskMessage(
        id="i", task="shop.pay", args=[1], kwargs={"a": 2}, retries=2, headers={"h": 1}, group="g"
    )


def test_it_knows_its_message(message):
    context = Context(message, queue="slow", worker="celeriac@here")
    assert (context.id, context.task, context.args, context.kwargs) == ("i", "shop.pay", [1], {"a": 2})
    assert (context.retries, context.attempt) == (2, 3)
    assert (context.headers, context.group_id, context.queue) == ({"h": 1}, "g", "slow")


def test_progress_is_reported_in_the_words_that_progress_bars_read(message):
    records = []
    Context(message, report=records.append).progress(3, 10, "packing")
    [record] = records
    assert (record.task_id, record.status) == ("i", "PROGRESS")
    assert record.result == {"current": 3, "total": 10, "message": "packing"}


def test_a_state_of_your_own(message):
    records = []
    Context(message, report=records.append).update_state("PAYING", {"step": 1})
    assert (records[0].status, records[0].result, records[0].name) == ("PAYING", {"step": 1}, "shop.pay")


def test_without_a_listener_reports_go_nowhere(message):
    Context(message).progress(1)


def test_retry_asks_for_another_run(message):
    cause = OSError()
    with pytest.raises(RetryRequested) as asked:
        Context(message).retry(countdown=3, cause=cause, max_attempts=9, kwargs={"a": 5})
    request = asked.value
    assert (request.countdown, request.cause, request.max_attempts) == (3, cause, 9)
    assert request.arguments == ((1,), {"a": 5})


def test_retry_keeps_the_arguments_unless_told(message):
    with pytest.raises(RetryRequested) as asked:
        Context(message).retry()
    assert asked.value.arguments is None


def test_reject_and_ignore(message):
    with pytest.raises(Reject) as rejected:
        Context(message).reject("poison")
    assert (rejected.value.reason, rejected.value.requeue) == ("poison", False)
    with pytest.raises(Ignore):
        Context(message).ignore()


def test_log_lines_carry_id_and_name(message, caplog):
    with caplog.at_level(logging.INFO, "celeriac.task"):
        Context(message).logger.info("paid %d", 5, extra={"shop": "x"})
    [record] = caplog.records
    assert (record.getMessage(), record.task_id, record.task_name, record.shop) == (
        "paid 5",
        "i",
        "shop.pay",
        "x",
    )
