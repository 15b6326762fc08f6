"""The tasks of a Celery app run on celeriac's worker as on Celery's own; a stock client sends and gets the values."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import chain, chord, group
from celery.exceptions import ChordError
from celery.exceptions import Reject as CelerysReject

from tests.celery_app.conftest import TIMEOUT, WITH_PYDANTIC, Shop, StartShop
from tests.servers import RedisServer


@pytest.fixture(scope="module", params=["threads", "processes"])
def started(client: Any, start_shop: StartShop, request: pytest.FixtureRequest) -> Iterator[Shop]:
    shop = start_shop("-P", request.param, "-c", "3")
    yield shop
    shop.process.stop()


@pytest.fixture
def worker(started: Shop) -> Shop:
    """The module's worker with the notes of this test alone."""
    return started.anew()


def value(result: Any) -> Any:
    return result.get(timeout=TIMEOUT, interval=0.02)


def test_values_and_the_request(client: Any, worker: Shop):
    assert value(client.add.delay(1, 2)) == 3
    assert value(client.app.tasks["tests.celery_app.shop.multiply"].delay(3, 4)) == 12
    assert value(client.counted.delay(1)) == 2
    given = f"as-given-{uuid.uuid4()}"
    sent = client.request.apply_async(kwargs={}, headers={"color": "red"}, task_id=given, app_id="till")
    seen = value(sent)
    assert (seen["id"], seen["root_id"], seen["retries"]) == (given, given, 0)
    assert seen["headers"] == {"color": "red"}
    assert seen["hostname"].count("@") == 1
    assert seen["delivery_info"]["routing_key"] == client.app.conf.task_default_queue
    assert seen["delivery_info"]["redelivered"] is False
    properties = seen["properties"]
    assert (properties["correlation_id"], properties["reply_to"]) == (given, client.app.thread_oid)
    assert (properties["priority"], properties["delivery_mode"], properties["app_id"]) == (0, 2, "till")
    assert properties["delivery_info"]["routing_key"] == client.app.conf.task_default_queue
    assert (seen["args"], seen["kwargs"]) == ("[]", {})  # a list, as hooks get it
    options = {"compression": "gzip", "expires": 60, "priority": 5, "delivery_mode": 1}
    more = value(client.request.apply_async(**options))
    assert (seen["compression"], more["compression"]) == (None, "application/x-gzip")
    assert (more["properties"]["expiration"], more["properties"]["delivery_mode"]) == ("60000", 1)
    assert (more["properties"]["priority"], more["delivery_info"]["priority"]) == (5, 5)
    assert "expiration" not in properties
    thread = "MainProcess" in seen["process"]
    assert thread or all(name.startswith("ForkPoolWorker-") for name in seen["process"])
    inside = client.applied_inside.delay()
    assert value(inside) == [3, 7, inside.id]


def test_what_shrinks_to_a_thousandth(client: Any, worker: Shop):
    assert value(client.total.apply_async(([0] * 8_000_000,), compression="gzip")) == 0


def test_retries(client: Any, worker: Shop):
    assert value(client.flaky.delay(2)) == 2
    with pytest.raises(ValueError, match="not before 9"):
        value(client.flaky.delay(9))
    with pytest.raises(KeyError, match="gone"):
        value(client.autoretried.delay("gone"))
    assert value(client.retried_twice_over.delay()) in {"first", "second"}


def test_states_of_a_running_task(client: Any, worker: Shop, tmp_path):
    states: list[Any] = []
    go_on = tmp_path / "go-on"
    result = client.progress.delay(str(go_on))

    def see(meta: dict[str, Any]) -> None:
        if meta["task_id"] == result.id:
            states.append((meta["status"], meta["result"]))
            go_on.touch()

    assert result.get(timeout=TIMEOUT, on_message=see) == "done"
    assert states[0] == ("PROGRESS", {"done": 1})


def test_coroutine_functions(client: Any, worker: Shop):
    result = client.awaited.delay(0.01)
    assert value(result) == result.id


@WITH_PYDANTIC
def test_coroutines_with_models(client: Any, worker: Shop):
    order = {"number": 1, "due": "2026-01-01T00:00:00Z"}
    assert value(client.modelled.delay(order, 1)) == {"number": 2, "due": "2026-01-02T00:00:00Z"}
    assert value(client.modelled.delay(order, 0)) is None


def test_coroutines_that_are_applied_inside(client: Any, worker: Shop):
    assert value(client.awaited_inside.delay()) == 4


def test_coroutines_share_a_loop_and_each_has_its_request(client: Any, worker: Shop):
    results = [client.on_the_loop.delay(0.3) for _ in range(4)]
    assert [value(result) for result in results] == [[result.id, result.id, 1] for result in results]


def test_coroutines_retry_and_fail_as_functions_do(client: Any, worker: Shop):
    assert value(client.retried_by_itself.delay()) == 1
    late = client.too_long.delay("late")
    with pytest.raises(SoftTimeLimitExceeded):
        value(late)
    assert worker.noted("cancelled", "late")
    with pytest.raises(WorkerLostError):
        value(client.exits.delay())
    assert value(client.add.delay(1, 2)) == 3


def test_failures(client: Any, worker: Shop):
    failed = client.fail.apply_async(link_error=[client.call_back.s(), client.told.s()])
    with pytest.raises(RuntimeError, match="as asked"):
        value(failed)
    assert "raise RuntimeError(text)" in failed.traceback
    assert worker.noted("errback", failed.id) == [["errback", failed.id, "RuntimeError('as asked')", True]]
    assert worker.noted("told", failed.id)
    with pytest.raises(LookupError):
        value(client.fail_as_expected.delay())
    with pytest.raises(CelerysReject):
        value(client.rejected.delay())
    with pytest.raises(Exception, match=r"object|JSON"):
        value(client.not_json.delay())


def test_time_limits(client: Any, worker: Shop):
    with pytest.raises(SoftTimeLimitExceeded):
        value(client.sleep.apply_async((30,), soft_time_limit=0.1))
    late = client.sleep.apply_async(
        (1.5,), time_limit=0.2, link_error=[client.call_back.s(), client.told.s()]
    )
    with pytest.raises(TimeLimitExceeded):
        value(late)
    [[_, state, _, error]] = [
        note for note in worker.noted("on_failure", count=2) if note[3].startswith("TimeLimit")
    ]
    assert (state, error.startswith("TimeLimitExceeded")) == ("FAILURE", True)
    worker.noted("errback", late.id)
    worker.noted("told", late.id)


def test_tasks_that_end_their_process(client: Any, worker: Shop):
    with pytest.raises(WorkerLostError, match="SystemExit"):
        value(client.leave.delay())
    assert value(client.late.delay()) is False


def test_no_result_where_none_is_wanted(client: Any, worker: Shop):
    forgotten, ignored = client.forgotten.delay(), client.ignored.delay()
    assert value(client.add.delay(1, 1)) == 2
    worker.noted("forgotten")
    assert (client.app.AsyncResult(forgotten.id).state, ignored.state) == ("PENDING", "PENDING")


def test_annotations_and_a_router_that_looks_at_arguments(
    client: Any, worker: Shop, redis_server: RedisServer
):
    assert value(client.annotated.delay()) == [7, 11]
    elsewhere = f"{client.app.conf.task_default_queue}-elsewhere"
    first = chain(client.add.s(1, 1), client.annotated.s("elsewhere")).apply_async().parent
    assert value(first) == 2
    with redis_server.client() as redis:
        deadline = time.monotonic() + TIMEOUT
        while not redis.llen(elsewhere) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert redis.delete(elsewhere) == 1


def test_workflows(client: Any, worker: Shop):
    add, multiply = client.add, client.app.tasks["tests.celery_app.shop.multiply"]
    assert value(chain(add.s(1, 2), multiply.s(4), add.s(1)).apply_async()) == 13
    assert value(group(add.s(i, i) for i in range(4)).apply_async()) == [0, 2, 4, 6]
    assert value(chord([add.s(i, i) for i in range(4)])(client.total.s())) == 12
    steps = add.s(1, 1) | group(add.s(i) for i in range(3)) | client.total.s() | multiply.s(2)
    assert value(steps.apply_async()) == 18
    assert value(add.starmap([(1, 2), (3, 4)]).delay()) == [3, 7]
    linked = add.apply_async((1, 1), link=add.s(5))
    assert value(linked) == 2
    assert value(linked.children[0]) == 7
    with pytest.raises(Exception, match="as asked"):
        value(chord([add.s(1, 1), client.fail.s()])(client.total.s()))
    never = chain(client.fail.s(), add.si(5, 6)).apply_async()
    with pytest.raises(RuntimeError, match="as asked"):
        value(client.app.AsyncResult(never.id))  # itself: its parents may be stored before it
    meta = client.app.backend.get_task_meta(never.id)  # results are extended here
    assert (meta["name"], meta["args"], meta["retries"]) == (add.name, [5, 6], 0)
    parent = client.parent.delay()
    assert value(parent) == parent.children[0].id
    assert value(parent.children[0]) == 2


def test_hidden_arguments_of_a_chords_body(client: Any, worker: Shop):
    hiding = client.request.si().set(argsrepr="(hidden)", kwargsrepr="{hidden}")
    asked = value(chord([client.add.s(1, 1), client.add.s(2, 2)])(hiding))
    assert (asked["argsrepr"], asked["kwargsrepr"]) == ("(hidden)", "{hidden}")


@pytest.mark.filterwarnings("ignore:task_allow_error_cb_on_chord_header:PendingDeprecationWarning")
@pytest.mark.parametrize("last", ["the inner chord", "the other task"])
def test_an_errback_of_a_chord_with_a_chord_in_its_header_is_called_once(
    client: Any, worker: Shop, last: str
):
    """Celery's client links it to both, and the inner one fails first."""
    inner = chord([client.add.s(1, 1), client.fail.si(last)], client.total.s())
    other = client.add.si(1, 1) if last == "the inner chord" else client.sleep.si(0.5)
    outer = chord([other, inner], client.total.s())
    for errback in (client.told.s(), client.call_back.s()):
        outer.link_error(errback)
    result = outer.delay()
    with pytest.raises(ChordError, match=last):
        value(result)
    assert worker.noted("told", result.id)
    assert worker.noted("errback", result.id)
    failed = {note[1] for note in worker.notes() if note[0] == "errback" and last in note[2]}
    assert failed == {result.id}
    assert len([note for note in worker.notes() if note[0] == "told"]) == 1


def test_a_chord_that_is_sent_again_under_its_ids(client: Any, worker: Shop):
    """Celery's client forgets that such a chord was done, and its body has to run once more."""
    send_again(client, worker, "again")


def test_a_chord_that_an_older_client_sends_again(client: Any, worker: Shop, monkeypatch: pytest.MonkeyPatch):
    """It only writes the chord's size once more: Celery 5.3 has no mark of a chord that is done."""
    backend = client.app.backend

    def set_chord_size(group_id: str, size: int) -> None:
        backend.set(backend.get_key_for_group(group_id, ".s"), size)

    monkeypatch.setattr(backend, "set_chord_size", set_chord_size)
    send_again(client, worker, "again, by an older client")


def send_again(client: Any, worker: Shop, note: str) -> None:
    task = chord([client.add.s(1, 2), client.add.s(3, 4)], client.told.si(note))
    task.freeze()
    for count in (1, 2):
        sent = task.apply_async()
        value(sent)
        worker.noted("told", note, count=count)
        until_closed(client, sent.parent.id)


def until_closed(client: Any, group: str) -> None:
    """Wait until the chord's keys are deleted: an older client's size would go with them, with Celery's workers too."""
    backend = client.app.backend
    deadline = time.monotonic() + TIMEOUT
    while backend.client.exists(backend.get_key_for_group(group, ".s")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_parts_of_a_failed_chord_stay(client: Any, worker: Shop):
    """Celery keeps them until they expire, to be looked at."""
    body = chord([client.add.s(1, 1), client.fail.s()])(client.total.s())
    with pytest.raises(Exception, match="as asked"):
        value(client.app.AsyncResult(body.id))
    backend = client.app.backend
    deadline = time.monotonic() + TIMEOUT
    while backend.client.get(backend.get_key_for_group(body.parent.id, ".c")) != b"done":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parts = backend.get_key_for_group(body.parent.id, ".j")
    assert backend.client.zcard(parts) == 2
    assert backend.client.ttl(parts) > 0


def test_tasks_that_replace_themselves_and_join(client: Any, worker: Shop):
    assert value(client.replaced.delay(1)) == 22
    assert value((client.replaced.s(1) | client.add.s(100)).apply_async()) == 122
    assert value(chord([client.replaced.s(1), client.add.s(1, 1)])(client.total.s())) == 24
    assert value(chord([client.joined.s(1), client.add.s(1, 1)])(client.total.s())) == 104


def test_hooks_run_in_the_thread_of_the_body_once_the_ending_is_stored(client: Any, worker: Shop):
    assert value(client.hooked.delay("ok")) == 7
    worker.noted("on_success", "SUCCESS", True, 7)
    worker.noted("after_return", "SUCCESS", True, "SUCCESS")
    with pytest.raises(ValueError, match="1"):
        value(client.hooked.delay("fail"))
    worker.noted("on_failure", "FAILURE", True, "ValueError(1)")
    assert value(client.hooked.delay("retry")) == 7
    [[_, state, same_thread]] = worker.noted("on_retry")
    assert state in {"RETRY", "SUCCESS"}  # the next run may have ended by now
    assert same_thread


def test_what_follows_is_sent_by_the_tasks_own_apply_async(client: Any, worker: Shop):
    tenant = client.tenant
    assert value(tenant.delay()) == "blue"
    assert value(tenant.delay("retry")) == "blue"
    assert value((client.add.s(1, 1) | tenant.s()).apply_async()) == "blue"
    assert value(chord([client.add.s(1, 1)])(tenant.s())) == "blue"
