"""Every message gets a verdict."""

from datetime import UTC, datetime

from celeriac.canvas.budget import Budget
from celeriac.client.revocations import Revoked
from celeriac.contracts.broker import Delivery
from celeriac.errors import ContentRefused, MalformedMessage, TaskNotFound
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.task import Malformed, TaskMessage
from celeriac.worker import gate
from celeriac.worker.attempt import SPENT
from celeriac.worker.gate import Discard, Facts, Hold, Refuse, Run, RunApart, Verdict

NOW = 1_000_000.0
FACTS = Facts({"add": "a task"}.get, lambda _: 5, Budget(), lambda _: None)


def admit(
    content: TaskMessage | Malformed | Unreadable, deliveries: int = 1, kept_until: float | None = None
) -> Verdict:
    delivery = Delivery(Envelope(b""), "queue", SPENT, deliveries=deliveries, kept_until=kept_until)
    return gate.admit(content, delivery, FACTS, Revoked(), NOW)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_known_task_runs():
    message = TaskMessage(id="1", task="add")
    assert admit(message) == Run(message)


def test_an_eta_ahead_is_held_until_then():
    message = TaskMessage(id="1", task="add", eta=at(NOW + 5))
    assert admit(message) == Hold(message, NOW + 5)


def test_an_eta_behind_runs():
    message = TaskMessage(id="1", task="add", eta=at(NOW - 5))
    assert admit(message) == Run(message)


def test_expired_is_discarded_before_anything_else():
    message = TaskMessage(id="1", task="nobody knows", eta=at(NOW + 5), expires=at(NOW))
    assert admit(message) == Discard(message, "expired")


def test_an_unknown_task_is_refused_even_if_its_eta_is_ahead():
    verdict = admit(TaskMessage(id="1", task="nope", eta=at(NOW + 5)))
    assert isinstance(verdict, Refuse)
    assert isinstance(verdict.error, TaskNotFound)
    assert (verdict.message.id, verdict.message.task) == ("1", "nope")


def test_unreadable_bytes_are_refused_with_the_reason():
    verdict = admit(Unreadable(b"x", "no JSON"))
    assert isinstance(verdict, Refuse)
    assert isinstance(verdict.error, MalformedMessage)
    assert "no JSON" in str(verdict.error)


def test_a_malformed_message_keeps_the_id_so_that_the_caller_can_be_told():
    verdict = admit(Malformed("kwargs is a list", id="7", task="add"))
    assert isinstance(verdict, Refuse)
    assert (verdict.message.id, verdict.message.task) == ("7", "add")


def test_content_that_is_not_accepted_is_told_apart_from_broken_content():
    verdict = admit(Malformed("pickle is not accepted", id="7", refused=True))
    assert isinstance(verdict, Refuse)
    assert isinstance(verdict.error, ContentRefused)


def test_a_chord_part_is_refused_with_what_is_in_the_way():
    verdict = admit(TaskMessage(id="1", task="add", chord={"task": "body"}))
    assert isinstance(verdict, Refuse)
    assert "chord" in str(verdict.error)


def test_what_the_broker_kept_until_it_was_due_runs_by_a_clock_that_is_behind():
    message = TaskMessage(id="1", task="add", eta=at(NOW + 5), expires=at(NOW + 7))
    assert admit(message, kept_until=NOW + 5) == Run(message)
    assert admit(message, kept_until=NOW + 7) == Discard(message, "expired")


def test_the_last_delivery_runs_apart_and_one_more_is_refused():
    message = TaskMessage(id="1", task="add")
    assert [admit(message, deliveries) for deliveries in (4, 5)] == [Run(message), RunApart(message)]
    assert isinstance(admit(message, 6), Refuse)
