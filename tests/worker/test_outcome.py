"""What each ending means."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac import Retry
from celeriac.contracts.backend import EncodedResult
from celeriac.errors import EncodeError, Ignore, Reject, RetryRequested
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, RETRY, SUCCESS, ResultRecord
from celeriac.wire.task import TaskMessage
from celeriac.worker.decision import Raised, Returned, Settle, Terms, WorkerTerms
from celeriac.worker.outcome import judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = TaskMessage(id="1", task="add", args=[1], root_id="1")
SIGNATURE = {"task": "next", "args": [9], "kwargs": {}, "options": {}, "immutable": False}


def terms(**changes: Any) -> Terms:
    given: dict[str, Any] = {
        "retry": None,
        "keep_result": True,
        "queue": "q",
        "now": NOW,
    }
    of_worker: dict[str, Any] = {
        "encode": lambda record: EncodedResult(record, b""),
        "random": lambda: 0.0,
        "inline": lambda name: False,
        "node": "w@h",
    }
    for name in of_worker.keys() & changes.keys():
        of_worker[name] = changes.pop(name)
    return Terms(WorkerTerms(**of_worker), **{**given, **changes})


def only(results: Any) -> ResultRecord:
    [result] = results
    return result.record


def test_a_value_is_success():
    decision = judge(MESSAGE, Returned(None), [], terms())
    record = only(decision.results)
    assert (decision.state, record.status, record.result, record.date_done) == (SUCCESS, SUCCESS, None, NOW)
    assert decision.settle is Settle.ACK


def test_an_exception_is_failure_with_type_and_traceback():
    decision = judge(MESSAGE, Raised(KeyError("k")), [], terms())
    record = only(decision.results)
    assert record.result == Failure("KeyError", ["k"], "builtins")
    assert "KeyError: 'k'" in (record.traceback or "")


def test_a_value_that_cannot_be_encoded_is_failure_before_any_effect():
    def encode(record: ResultRecord) -> EncodedResult:
        if record.status == SUCCESS:
            raise EncodeError("result: <object>")
        return EncodedResult(record, b"")

    decision = judge(MESSAGE, Returned(object()), [], terms(encode=encode))
    assert decision.state == FAILURE
    assert only(decision.results).result.exc_type == "EncodeError"


def test_ignored_results_are_not_recorded():
    assert judge(MESSAGE, Returned(1), [], terms(keep_result=False)).results == ()
    assert judge(MESSAGE, Raised(KeyError()), [], terms(keep_result=False)).results == []


def test_ignore_records_nothing_and_acknowledges():
    decision = judge(MESSAGE, Raised(Ignore()), [], terms())
    assert (decision.state, decision.results, decision.settle) == (None, (), Settle.ACK)


def test_reject_buries_with_a_failure_and_requeue_gives_back_without():
    buried = judge(MESSAGE, Raised(Reject("bad")), [], terms())
    assert (buried.state, buried.settle) == (FAILURE, Settle.BURY)
    back = judge(MESSAGE, Raised(Reject(requeue=True)), [], terms())
    assert (back.state, back.results, back.settle) == (None, (), Settle.REQUEUE)


def test_the_policy_asks_for_another_run_under_the_same_id():
    policy = Retry(on=(OSError,), max_attempts=3, backoff=10, jitter=False)
    decision = judge(MESSAGE, Raised(OSError("net")), [], terms(retry=policy))
    [follow_up] = decision.follow_ups
    again = follow_up.message
    assert (again.id, again.retries, again.eta, follow_up.queue) == ("1", 1, NOW + timedelta(seconds=10), "q")
    assert again.parent_id == "1"
    assert only(decision.results).status == RETRY
    assert not decision.publish_first
    assert decision.settle is Settle.ACK


def test_the_last_attempt_fails_with_the_tasks_own_exception():
    policy = Retry(on=(OSError,), max_attempts=3)
    last = TaskMessage(id="1", task="add", retries=2)
    decision = judge(last, Raised(OSError("net")), [], terms(retry=policy))
    assert (decision.state, list(decision.follow_ups)) == (FAILURE, [])
    assert only(decision.results).result.exc_type == "OSError"


def test_a_policy_leaves_other_exceptions_alone():
    decision = judge(MESSAGE, Raised(KeyError()), [], terms(retry=Retry(on=(OSError,))))
    assert decision.state == FAILURE


def test_an_explicit_retry_carries_its_own_delay_arguments_and_limit():
    request = RetryRequested(countdown=7, max_attempts=2, arguments=((5,), {"k": 1}))
    decision = judge(MESSAGE, Raised(request), [], terms())
    again = decision.follow_ups[0].message
    assert (again.eta, again.args, again.kwargs) == (NOW + timedelta(seconds=7), [5], {"k": 1})
    exhausted = judge(again, Raised(request), [], terms())
    assert exhausted.state == FAILURE


def test_when_explicit_retries_run_out_the_cause_is_what_the_caller_gets():
    try:
        try:
            raise ValueError("why")
        except ValueError:
            raise RetryRequested(max_attempts=1)  # noqa: B904 - as a task would
    except RetryRequested as request:
        decision = judge(MESSAGE, Raised(request), [], terms())
    assert only(decision.results).result.exc_type == "ValueError"


@pytest.mark.parametrize("immutable", [False, True])
def test_callbacks_get_the_value_first_unless_immutable(immutable: bool):
    message = TaskMessage(id="1", task="add", root_id="r", callbacks=[{**SIGNATURE, "immutable": immutable}])
    decision = judge(message, Returned(3), [], terms())
    [follow_up] = decision.follow_ups
    assert follow_up.message.args == ([9] if immutable else [3, 9])
    assert (follow_up.message.root_id, follow_up.message.parent_id) == ("r", "1")
    assert decision.publish_first
    assert only(decision.results).children == [[[follow_up.message.id, None], None]]


def test_follow_ups_have_the_same_ids_when_the_task_is_run_again():
    message = TaskMessage(id="1", task="add", callbacks=[SIGNATURE, SIGNATURE])
    first = [f.message.id for f in judge(message, Returned(3), [], terms()).follow_ups]
    again = [f.message.id for f in judge(message, Returned(3), [], terms()).follow_ups]
    assert first == again
    assert len(set(first)) == 2


def test_a_chain_goes_on_with_its_last_element_and_the_rest():
    last = {**SIGNATURE, "options": {"task_id": "c"}}
    following = {**SIGNATURE, "options": {"task_id": "b"}}
    message = TaskMessage(id="a", task="add", chain=[last, following])
    [step] = judge(message, Returned(3), [], terms()).follow_ups
    assert (step.message.id, step.message.chain) == ("b", [last])


def test_a_failed_step_fails_the_steps_behind_it_and_sends_errbacks_the_id():
    step = {**SIGNATURE, "options": {"task_id": "b"}}
    message = TaskMessage(id="a", task="add", chain=[step], errbacks=[SIGNATURE])
    decision = judge(message, Raised(KeyError("k")), [], terms())
    assert [(r.record.task_id, r.record.status) for r in decision.results] == [("a", FAILURE), ("b", FAILURE)]
    [errback] = decision.follow_ups
    assert errback.message.args == ["a", 9]
    assert not decision.publish_first
