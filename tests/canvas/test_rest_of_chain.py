"""What is left of a chain travels as one list, which workers of both kinds read to its end."""

from celeriac import Node, Signature, chain, chord, from_dict
from celeriac.canvas.advance import after_success, replacing
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
