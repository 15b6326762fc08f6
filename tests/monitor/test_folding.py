"""What events say of a task, in any order."""

from itertools import permutations
from typing import Any

from celeriac.monitor.folding import error_class, fingerprint, fold, place_of
from celeriac.monitor.rows import TaskRow

TRACEBACK = """\
Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/celery/app/trace.py", line 5, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/shop/orders.py", line 31, in pay
    charge(order)
  File "/opt/venv/lib/python3.11/site-packages/stripe/api.py", line 8, in charge
    raise ValueError("declined")
ValueError: declined
"""


def event(kind: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "uuid": "t", "hostname": "celery@a", "timestamp": at, **fields}


def folded(*events: dict[str, Any]) -> TaskRow:
    row = TaskRow("t")
    for told in events:
        fold(row, told)
    return row


def test_a_task_in_every_order_of_its_events():
    told = (
        event("task-sent", 1.0, name="shop.pay", args="(1,)", queue="pay", hostname="gen@web"),
        event("task-received", 2.0, name="shop.pay", args="(1,)", kwargs="{}"),
        event("task-started", 3.0),
        event("task-succeeded", 5.0, result="7", runtime=1.5),
    )
    for order in permutations(told):
        row = folded(*order)
        assert (row.state, row.name, row.queue, row.result) == ("SUCCESS", "shop.pay", "pay", "7")
        assert (row.sent, row.received, row.started, row.ended, row.runtime) == (1.0, 2.0, 3.0, 5.0, 1.5)
        assert (row.wait, row.worker) == (2.0, "celery@a")


def test_a_retry_that_ends_well():
    row = folded(
        event("task-received", 1.0, name="shop.pay"),
        event("task-started", 2.0),
        event("task-retried", 3.0, exception="OSError('away')"),
        event("task-received", 4.0, retries=1),
        event("task-started", 5.0),
        event("task-succeeded", 6.0, result="None"),
    )
    assert (row.state, row.retries, row.error, row.received) == ("SUCCESS", 1, "", 1.0)


def test_a_task_that_is_run_anew_after_its_end():
    row = folded(event("task-failed", 3.0, exception="ValueError('x')"), event("task-started", 9.0))
    assert row.state == "STARTED"


def test_an_event_of_before_the_end_that_comes_late_changes_no_state():
    row = folded(event("task-failed", 3.0, exception="ValueError('x')"), event("task-started", 2.0))
    assert (row.state, row.started) == ("FAILURE", 2.0)


def test_progress_is_no_state():
    row = folded(
        event("task-started", 1.0), event("task-progress", 2.0, progress=3, total=10, message="three")
    )
    assert (row.state, row.progress) == ("STARTED", '{"progress":3,"total":10,"message":"three"}')


def test_a_task_that_is_its_own_parent_has_none():
    assert folded(event("task-received", 1.0, parent_id="t")).parent == ""


def test_fields_of_any_type_become_text():
    row = folded(event("task-received", 1.0, name=["x"], args={"a": 1}, retries="many", runtime="long"))
    assert (row.name, row.args, row.retries, row.runtime) == ("['x']", "{'a': 1}", 0, None)


def test_the_place_is_the_last_frame_in_the_users_code():
    assert place_of(TRACEBACK) == "/srv/shop/orders.py:pay"
    assert place_of("no traceback") == ""


def test_errors_that_differ_in_their_message_only_are_of_one_kind():
    one = fingerprint("shop.pay", "ValueError('a')", TRACEBACK)
    assert one == fingerprint("shop.pay", "ValueError('b')", TRACEBACK.replace("line 31", "line 32"))
    assert one != fingerprint("shop.pay", "OSError('a')", TRACEBACK)
    assert one != fingerprint("shop.ship", "ValueError('a')", TRACEBACK)


def test_the_class_of_an_error():
    assert error_class("shop.Declined(3)") == "shop.Declined"
    assert error_class("None") == "Retry"
