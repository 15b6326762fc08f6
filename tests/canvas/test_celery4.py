"""A chord that comes later in a chain of Celery 4: its header names the body, not its size nor what follows it."""

from typing import Any

from celeriac.canvas.advance import Advance, after_success
from celeriac.wire.task import TaskMessage

BODY = {"task": "total", "options": {"task_id": "body"}, "chord_size": None}


def member(task_id: str) -> dict[str, Any]:
    return {"task": "part", "options": {"task_id": task_id, "chord": BODY}, "chord_size": None}


def composite(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"task": f"celery.{kind}", "kwargs": kwargs, "options": {}, "subtask_type": kind}


def after_first(header: list[dict[str, Any]], *later: dict[str, Any]) -> Advance:
    """What follows the first task of a chain; the chord is the second."""
    chord = composite("chord", header=composite("group", tasks=header), body=BODY)
    return after_success(TaskMessage(id="first", task="first", chain=[*later, chord]), 1)


def test_every_part_is_told_the_size_and_what_follows_the_body() -> None:
    advance = after_first(
        [member("a"), member("b")], {"task": "later", "options": {"task_id": "later"}, "chord_size": None}
    )
    bodies = [part.message.chord for part in advance.follow_ups]
    assert [body and body["chord_size"] for body in bodies] == [2, 2]
    assert [body and body["options"]["chain"][0]["task"] for body in bodies] == ["later", "later"]


def test_a_group_at_the_end_of_a_member_counts_as_many_parts() -> None:
    start = {"task": "start", "options": {"task_id": "start"}}
    ended = composite("chain", tasks=[start, composite("group", tasks=[member("a"), member("b")])])
    advance = after_first([ended, member("c")])
    assert [opening.size for opening in advance.openings] == [3]
