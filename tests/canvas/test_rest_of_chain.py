"""What is left of a chain travels as one list, which workers of both kinds read to its end."""

from celeriac import Node, Signature, chain, chord, from_dict
from celeriac.canvas.advance import after_failure, after_parts, after_success, part_of, replacing
from celeriac.wire.result import SUCCESS
from celeriac.wire.task import TaskMessage

a, b, c, d = (Signature(name) for name in "abcd")


def message(*later: Node[object]) -> TaskMessage:
    return TaskMessage(id="id", task="t", chain=[step.to_dict() for step in reversed(later)])


def test_behind_the_chain_that_replaces_a_task():
    [sent] = replacing(message(c, d), (a | b).to_dict()).follow_ups
    assert [step["task"] for step in sent.message.chain] == ["d", "c", "b"]
    assert not any("chain" in step["options"] for step in sent.message.chain)


def test_behind_a_chain_that_is_a_step():
    step = (a | b).to_dict()
    [sent] = after_success(
        TaskMessage(id="id", task="t", chain=[d.to_dict(), c.to_dict(), step]), 1
    ).follow_ups
    assert [step["task"] for step in sent.message.chain] == ["d", "c", "b"]


def test_behind_a_chord_its_body_carries_it():
    [sent] = after_success(message(chord([a], b), c, d), 1).follow_ups
    assert sent.message.chord is not None
    assert [step["task"] for step in sent.message.chord["options"]["chain"]] == ["d", "c"]


def test_a_callback_of_a_group_goes_to_each_member():
    """Celery writes it so for a chain that ends in a group."""
    end = chain(a, b).to_dict() | {"options": {}}
    ending = {"task": "celery.group", "subtask_type": "group", "args": [], "immutable": False}
    ending |= {"kwargs": {"tasks": [c.to_dict(), end]}, "options": {"link": [d.to_dict()]}}
    assert from_dict(ending) == from_dict(ending | {"options": {}}).link(d)
    sent = after_success(TaskMessage(id="id", task="t", chain=[ending]), 1).follow_ups
    assert [one.message.callbacks for one in sent] == [[d.to_dict()], []]
    assert sent[1].message.chain[0]["options"]["link"] == [d.to_dict()]


def test_what_follows_has_a_priority_of_its_own_or_none():
    """As Celery's worker sends it: what comes before it passes its number on to nothing."""
    marked = b.set(priority=7).to_dict()
    before = TaskMessage(
        id="id",
        task="t",
        priority=5,
        chain=[a.to_dict()],
        callbacks=[b.to_dict(), marked],
        errbacks=[c.to_dict()],
        chord={**d.to_dict(), "chord_size": 1},
        group="g",
    )
    [part] = part_of(before, SUCCESS, 1)
    sent = [
        *after_success(before, 1).follow_ups,
        *after_failure(before, lambda _: False).follow_ups,
        *after_parts(part, [1]).follow_ups,
        *replacing(before, d.to_dict()).follow_ups,
    ]
    assert sorted((each.message.task, each.message.priority) for each in sent) == [
        ("a", 0),
        ("b", 0),
        ("b", 7),
        ("c", 0),
        ("d", 0),
        ("d", 0),
    ]
