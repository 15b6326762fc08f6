"""Finds the follow-ups of an ended task: callbacks, the next step of a chain, errbacks, the body of a chord.

Rules: this module is pure. Ids of follow-ups are derived from the ended task's id, so that a repeat after a redelivery
has the same ids and can be recognised. A message whose follow-ups cannot be sent is found by ``obstacle`` before its
task runs, so that no follow-up is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from celeriac.canvas.budget import MAX_FOLLOW_UPS, Budget, number_of
from celeriac.canvas.celery_form import from_dict, placed
from celeriac.canvas.freeze import derived_ids, ending_in_one, freeze, with_id
from celeriac.canvas.launch import FollowUp, Launch, Opening, Origin, message_of, shown
from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature, leaves
from celeriac.canvas.trail import trail
from celeriac.errors import MalformedMessage
from celeriac.wire.signature import as_list
from celeriac.wire.task import TaskMessage


class Advance(msgspec.Struct, frozen=True):
    """The messages to send, and those of them that are recorded as the ended task's children.

    :param children: Celery's result tuples.
    :param ends: for each workflow, the ids of the tasks that it ends in.
    """

    follow_ups: Sequence[FollowUp] = ()
    openings: Sequence[Opening] = ()
    children: Sequence[Any] = ()
    ends: Sequence[str] = ()


class Part(msgspec.Struct, frozen=True):
    """A part of a chord that ended.

    :param value: what the task returned, or the ``Failure`` it ended with.
    :param body: the signature of the chord's body.
    :param root_id: the root id of the workflow that the body belongs to.
    :param protocol: the message protocol that the body is sent in.
    """

    chord_id: str
    task_id: str
    index: int | None
    state: str
    value: Any
    body: dict[str, Any]
    root_id: str
    protocol: Literal[1, 2] = 2

    @property
    def size(self) -> int | None:
        """How many parts the chord has, where the body says so (Celery 4, celeriac)."""
        size = self.body.get("chord_size")
        return size if isinstance(size, int) else None


class Casualty(msgspec.Struct, frozen=True):
    """A task that will never run, because another one failed."""

    task_id: str
    chord_id: str | None
    index: int | None
    body: dict[str, Any] | None
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    args_repr: str | None
    kwargs_repr: str | None


def obstacle(message: TaskMessage, budget: Budget = Budget()) -> str | None:  # noqa: B008 - it is frozen
    """Return the reason why the follow-ups of this message cannot be sent; ``None`` if they can."""
    if message.chord is not None and message.group is None:
        return "it is part of a chord, but of no group"
    body = [] if message.chord is None else [message.chord]
    try:
        if (excess := budget.excess(message)) is not None:
            return f"too much follows it: {excess}"
        for signature in (*message.callbacks, *message.errbacks, *message.chain[-1:], *body):
            trail(freeze(from_dict(signature), lambda: ""))
    except MalformedMessage as error:
        return f"what follows it cannot be understood: {error}"
    except RecursionError:
        return "what follows it nests too deeply"
    return None


def after_success(message: TaskMessage, value: Any) -> Advance:
    """Return the callbacks and the next step of the chain, in the order in which Celery sends them on success.

    Of several callbacks, each group goes out by itself, and all others go out as one group, as Celery sends them.
    """
    launch = Launch(_origin(message))
    ids = derived_ids(f"{message.id}/{message.retries}/callback")
    children = []
    for node in _as_sent_together([from_dict(callback) for callback in message.callbacks]):
        frozen = freeze(node, ids)
        launch.add(frozen, [value])
        children.append(trail(frozen).as_tuple())
    if message.chain:
        node, rest = _next_step(message.chain)
        frozen = freeze(node, derived_ids(f"{message.id}/{message.retries}/chain"))
        launch.add(frozen, [value], rest)
        children.append(trail(frozen).as_tuple())
    return Advance(launch.follow_ups, launch.openings, children)


def after_failure(message: TaskMessage, inline: Callable[[Signature[Any]], bool]) -> Advance:
    """Return the errbacks that go out as messages: they get the failed task's id as first argument.

    :param inline: tells whether an errback with this signature is called in the worker itself, without a message.
    """
    errbacks = tuple(
        node for node in _understood(message.errbacks) if not (isinstance(node, Signature) and inline(node))
    )
    if not errbacks:
        return Advance()
    launch = Launch(_origin(message))
    ids = derived_ids(f"{message.id}/{message.retries}/errback")
    frozen = freeze(Group(errbacks), ids)
    launch.add(frozen, [message.id])
    return Advance(launch.follow_ups, launch.openings, [trail(frozen).as_tuple()])


def replacing(message: TaskMessage, signature: dict[str, Any]) -> Advance:
    """Return the workflow that runs in the task's place: under its id, in its chain, group and chord.

    Raises ``MalformedMessage`` for an empty workflow, and for one that is part of another chord already.
    """
    node = from_dict(signature)
    if isinstance(node, Chain) and not node.steps:
        raise MalformedMessage(f"task {message.task}[{message.id}] cannot be replaced by an empty chain")
    node = ending_in_one(node)
    if any(leaf.options.get("chord") is not None for leaf in leaves(node)):
        raise MalformedMessage(
            f"task {message.task}[{message.id}]: what replaces it is part of a chord already"
        )
    nesting = message.replaced_task_nesting + 1
    node = with_id(_nested(node, nesting), message.id)
    if message.callbacks:
        node = node.link(*_nodes(message.callbacks))
    if message.errbacks:
        node = node.link_error(*_nodes(message.errbacks))
    place = {"group_id": message.group, "group_index": message.group_index, "chord": message.chord}
    node = placed(node, {name: value for name, value in place.items() if value is not None})
    launch = Launch(_origin(message, parent_id=message.parent_id or message.id))
    launch.add(
        freeze(node, derived_ids(f"{message.id}/{message.retries}/replace/{nesting}")), rest=message.chain
    )
    return Advance(launch.follow_ups, launch.openings)


def joining(message: TaskMessage, signatures: Sequence[dict[str, Any]]) -> Advance:
    """Return the tasks that become further parts of the chord that this task is a part of.

    Raises ``MalformedMessage`` when this task is part of no chord.
    """
    if message.chord is None or message.group is None:
        raise MalformedMessage(
            f"task {message.task}[{message.id}] is part of no chord that another could join"
        )
    launch = Launch(_origin(message))
    ids = derived_ids(f"{message.id}/{message.retries}/join")
    place = {"group_id": message.group, "group_index": message.group_index, "chord": message.chord}
    trails = []
    for signature in signatures:
        node = placed(freeze(ending_in_one(from_dict(signature)), ids), place)
        launch.add(node)
        trails.append(trail(node))
    children = [one.as_tuple() for one in trails]
    return Advance(launch.follow_ups, launch.openings, children, [one.id for one in trails])


def part_of(message: TaskMessage, state: str, value: Any) -> list[Part]:
    """Return the ended task as a part of its chord; empty where it is part of none."""
    if message.chord is None or message.group is None:
        return []
    root_id = message.root_id or message.id
    return [
        Part(
            message.group,
            message.id,
            message.group_index,
            state,
            value,
            message.chord,
            root_id,
            message.protocol,
        )
    ]


def casualties(message: TaskMessage) -> list[Casualty]:
    """Return the later steps of a failed task's chain: they will never run.

    In protocol 1 a chain is written as nested callbacks: the callback of each step is the next step.
    """
    linked = message.protocol == 1
    steps = [*reversed(message.chain), *(message.callbacks if linked else ())]
    return [lost for step in _understood(steps) for lost in _lost(step, linked=linked)]


def after_parts(part: Part, values: list[Any]) -> Advance:
    """Return the body of a chord whose parts have all ended; ``part`` is the last one."""
    launch = Launch(_body_origin(part))
    launch.add(_body(part), [values])
    return Advance(launch.follow_ups, launch.openings)


def body_lost(part: Part) -> tuple[list[TaskMessage], list[Casualty]]:
    """Return the messages and the casualties of a chord whose body will never run.

    The messages are those of the body, or of each member if it is a group: their errbacks are called. The casualties
    are all tasks that will never run, the body included.

    An errback that is linked to a chord around this one, too, is left to that one, which fails with this one: Celery's
    client links the errback of a chord to the chords within it, and it is to be called once.
    """
    if number_of(part.body) > MAX_FOLLOW_UPS:
        return [], []
    body = _body(part)
    origin = _body_origin(part)
    lost = list(_lost(body, linked=part.protocol == 1))
    messages = [message_of(head, origin, part.root_id) for head in _ends(body)]
    if any(message.errbacks for message in messages) and (around := _errbacks_around(lost)):
        messages = [_without(message, around) for message in messages]
    return messages, lost


def lost_parts(
    lost: Sequence[Casualty],
    state: str,
    failure: Any,
    *,
    root_id: str,
    protocol: Literal[1, 2] = 2,
) -> list[Part]:
    """Return the parts of running chords that will never come, because these casualties would have been them."""
    return [
        Part(one.chord_id, one.task_id, one.index, state, failure, one.body, root_id, protocol)
        for one in lost
        if one.chord_id is not None and one.body is not None
    ]


def _body(part: Part) -> Node[Any]:
    return freeze(from_dict(part.body), derived_ids(f"{part.chord_id}/body"))


def _body_origin(part: Part) -> Origin:
    return Origin(parent_id=part.task_id, root_id=part.root_id, protocol=part.protocol)


def _origin(message: TaskMessage, parent_id: str | None = None) -> Origin:
    return Origin(
        parent_id=parent_id or message.id,
        root_id=message.root_id or message.id,
        reply_to=message.reply_to,
        stamped_headers=message.stamped_headers or (),
        stamps=message.stamps,
        protocol=message.protocol,
    )


def _as_sent_together(nodes: list[Node[Any]]) -> list[Node[Any]]:
    if len(nodes) < 2:
        return nodes
    groups = [node for node in nodes if isinstance(node, Group)]
    others = tuple(node for node in nodes if not isinstance(node, Group))
    return [*groups, Group(others)] if others else list(groups)


def _next_step(chain: Sequence[dict[str, Any]]) -> tuple[Node[Any], Sequence[dict[str, Any]]]:
    """Return the next step, and the rest of the chain in wire order. A group comes with the step that collects it."""
    node, rest = from_dict(chain[-1]), chain[:-1]
    while rest and _ends_in_group(node):
        node, rest = Chain((node, from_dict(rest[-1]))), rest[:-1]
    return node, rest


def _ends_in_group(node: Node[Any]) -> bool:
    match node:
        case Group():
            return True
        case Chain(steps=(*_, last)):
            return _ends_in_group(last)
        case Chord(body=body):
            return _ends_in_group(body)
    return False


def _lost(node: Node[Any], *, linked: bool = False) -> Iterator[Casualty]:
    """Yield every task of a workflow that has an id to wait for, the header of a chord included.

    :param linked: whether callbacks are steps of a chain, as in protocol 1.
    """
    for leaf in leaves(node):
        options = leaf.options
        if leaf.id is not None:
            body = options.get("chord")
            chord_id = options.get("group_id") if body is not None else None
            called = leaf.task, list(leaf.args), dict(leaf.kwargs)
            seen = shown(options, "argsrepr"), shown(options, "kwargsrepr")
            yield Casualty(leaf.id, chord_id, options.get("group_index"), body, *called, *seen)
        links = as_list(options.get("link")) if linked else ()
        for step in _understood([*reversed(options.get("chain") or ()), *links]):
            yield from _lost(step, linked=linked)


def _ends(node: Node[Any]) -> Iterator[Signature[Any]]:
    """Yield the tasks of a chord's body whose errbacks are called: those that would run first; of a chord, its body."""
    match node:
        case Signature():
            yield node
        case Chain(steps=(first, *_)):
            yield from _ends(first)
        case Group(members=members):
            for member in members:
                yield from _ends(member)
        case Chord(body=body):
            yield from _ends(body)


def _errbacks_around(lost: Sequence[Casualty]) -> list[Any]:
    """Return the errbacks of the chords that these casualties would have been parts of."""
    bodies = [one.body for one in lost if one.body is not None]
    ends = [end for body in _understood(bodies) for end in _ends(body)]
    return [errback for end in ends for errback in as_list(end.options.get("link_error"))]


def _without(message: TaskMessage, errbacks: Sequence[Any]) -> TaskMessage:
    """Return a message that has none of these errbacks."""
    kept = [one for one in message.errbacks if one not in errbacks]
    return msgspec.structs.replace(message, errbacks=kept)


def _nested(node: Node[Any], nesting: int) -> Node[Any]:
    """Return the workflow with the number of replacements so far noted on every task."""
    match node:
        case Signature():
            return node.over({"replaced_task_nesting": nesting})
        case Chain(steps=steps):
            return Chain(tuple(_nested(step, nesting) for step in steps))
        case Group(members=members, id=group_id):
            return Group(tuple(_nested(member, nesting) for member in members), group_id)
        case Chord(header=header, body=body):
            marked = _nested(header, nesting)
            assert isinstance(marked, Group)
            return Chord(marked, _nested(body, nesting))
    return node


def _understood(signatures: Iterable[Any]) -> Iterator[Node[Any]]:
    """Yield the nodes of those signatures that can be read: the message of a refused task may hold anything.

    A signature of too many tasks is left out, too.
    """
    left = MAX_FOLLOW_UPS
    for signature in signatures:
        left -= number_of(signature)
        if left < 0:
            return
        with suppress(MalformedMessage):
            yield from_dict(signature)


def _nodes(signatures: Sequence[Any]) -> list[Node[Any]]:
    return [from_dict(signature) for signature in signatures]
