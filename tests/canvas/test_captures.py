"""Workflows that Celery's clients of several versions put on the wire, run to their end."""

from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac, Node, from_dict
from celeriac.canvas.launch import Opening
from celeriac.canvas.nodes import Chord, Group, last_id, leaves
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Route
from celeriac.wire.task import TaskMessage, decode
from tests.wire.captures import Captured, captured

PRODUCERS = ["celery57-v2", "celery57-v1", "celery44-v2"]
VALUES = {"chain": 13, "chain-group": [4, 6], "chain-group-task": 10, "chord": 2, "chord-nested": 32}


@pytest.fixture
async def app(queue: str) -> Any:
    async with Celeriac("captured", broker="memory://", backend="memory://", default_queue=queue) as made:
        made.register("tasks.add", lambda x, y: x + y)
        made.register("tasks.mul", lambda x, y: x * y)
        made.register("tasks.xsum", lambda numbers: sum(number for number in numbers))
        yield made


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("producer", PRODUCERS)
async def test_it_gives_the_value(app: Celeriac, queue: str, case: str, producer: str):
    found = captured(f"msg.{case}.{producer}.redis")
    messages = [read(one) for one in found]
    end = next(node for message in messages for node in ends(message))
    if producer.startswith("celery57"):
        await open_as_the_client_did(app, messages)
    connections = app.connections()
    await connections.broker.publish_many([(one.envelope, Route(queue)) for one in found])
    async with app.worker():
        assert await value(app, end) == VALUES[case]


def read(one: Captured) -> TaskMessage:
    message = decode(one.envelope, Codecs())
    assert isinstance(message, TaskMessage)
    return message


def ends(message: TaskMessage) -> Iterator[Node[Any]]:
    """Yield what gives the workflow's value, as far as this message tells."""
    if message.chord is not None:
        yield from_dict(message.chord)
    for step in message.chain[:1]:
        yield from_chord(from_dict(step))
    for callback in message.callbacks:
        node: Any = callback
        while links := node["options"].get("link"):
            node = links[0]
        yield from_chord(from_dict(node))


def from_chord(node: Node[Any]) -> Node[Any]:
    """The last step of a chain in a header says what body it is counted for."""
    bodies = [leaf.options["chord"] for leaf in leaves(node) if leaf.options.get("chord")]
    return from_dict(bodies[0]) if bodies and not isinstance(node, Chord) else node


async def open_as_the_client_did(app: Celeriac, messages: list[TaskMessage]) -> None:
    """Write what a client of Celery 5 writes into the result store beside the messages."""
    groups = {message.group for message in messages if message.chord} - {None}
    chords = app.connections().backend.chords
    assert chords is not None
    await chords.open([Opening(group_id, len(messages)) for group_id in groups if group_id])


async def value(app: Celeriac, end: Node[Any]) -> Any:
    if isinstance(end, Group):
        return [await app.result(str(last_id(member))).wait(60) for member in end.members]
    return await app.result(str(last_id(end))).wait(60)
