"""Gives a workflow its ids and its one regular form, before any of it is sent.

Rules: this module is pure. A task that has an id keeps it. In the regular form no chain is directly inside a chain, and
no group inside a group. A group is only at the end of a chain: a group before the end becomes a chord with the step
after it. The body of a chord is one signature, a group or a chord. Every member of a chord's header ends in one task,
so that it counts as one part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature, leaves
from celeriac.canvas.options import DESTINATION
from celeriac.wire.signature import ACCUMULATE

NewId = Callable[[], str]


def derived_ids(origin: str) -> NewId:
    """Return a source of ids that gives the same ids in the same order for the same origin."""
    numbers = iter(range(1 << 62))
    return lambda: str(uuid5(NAMESPACE_OID, f"{origin}/{next(numbers)}"))


def freeze(node: Node[Any], new_id: NewId) -> Node[Any]:
    """Return the workflow in its regular form, with every task's and group's id.

    :param new_id: makes an id; called in the order of the workflow's parts.
    """
    match node:
        case Signature():
            return node if node.id is not None else node.over({"task_id": new_id()})
        case Group():
            return _frozen_group(node, new_id)
        case Chord():
            return _frozen_chain((node,), new_id)
        case Chain():
            return _frozen_chain(node.steps, new_id)
    raise TypeError(f"{type(node).__name__} is no node")


def with_id(node: Node[Any], task_id: str) -> Node[Any]:
    """Return the workflow with this id on the task that gives its value; it need not be in the regular form."""
    match node:
        case Signature():
            return node.over({"task_id": task_id})
        case Chain(steps=(*before, last)):
            return Chain((*before, with_id(last, task_id)))
        case Chord(header=header, body=body):
            return Chord(header, with_id(body, task_id))
    return with_id(_collected(node), task_id)


def ending_in_one(node: Node[Any]) -> Node[Any]:
    """Return a workflow of the same value that ends in one task: a group at the end is collected into a list."""
    match node:
        case Group():
            return _collected(node)
        case Chain(steps=steps):
            *before, last = _spliced_steps(steps) or (Group(),)
            return Chain((*before, ending_in_one(last)))
        case Chord(header=header, body=body):
            return Chord(header, ending_in_one(body))
    return node


def _collected(node: Node[Any]) -> Node[Any]:
    group = node if isinstance(node, Group) else Group((node,))
    # It goes where the last of what it collects goes: some worker takes that queue.
    last = deque(leaves(group), maxlen=1)
    near = {name: value for leaf in last for name, value in leaf.options.items() if name in DESTINATION}
    return Chord(group, Signature(ACCUMULATE, kwargs={"index": 0}, options=near))


def _frozen_group(group: Group[Any], new_id: NewId, *, counted: bool = False) -> Group[Any]:
    """Freeze a group.

    :param counted: it is a chord's header.
    """
    members = []
    group_id = group.id if group.id is not None else new_id()
    for index, member in enumerate(_spliced(group)):
        frozen = freeze(ending_in_one(member) if counted and not _is_counted(member) else member, new_id)
        members.append(_numbered(frozen, index))
    return Group(tuple(members), group_id)


def _is_counted(node: Node[Any]) -> bool:
    """Whether this member carries its chord already, as in a workflow that Celery has frozen."""
    match node:
        case Signature():
            return node.options.get("chord") is not None
        case Chain(steps=(*_, last)):
            return _is_counted(last)
        case Group(members=members):
            return any(map(_is_counted, members))
        case Chord(body=body):
            return _is_counted(body)
    return False


def _numbered(node: Node[Any], index: int) -> Node[Any]:
    match node:
        case Signature():
            return node.under({"group_index": index})
        case Chain(steps=(*before, last)):
            return Chain((*before, _numbered(last, index)))
        case Chord(header=header, body=body):
            return Chord(header, _numbered(body, index))
    return node


def _spliced(group: Group[Any]) -> Iterator[Node[Any]]:
    """Yield the members; a group is replaced by its members, a chain of one by its step, an empty chain by nothing."""
    for member in group.members:
        alone = _spliced_steps(member.steps) if isinstance(member, Chain) else [member]
        if len(alone) == 1 and isinstance(alone[0], Group):
            yield from _spliced(alone[0])
        elif alone:
            yield member


def _frozen_chain(steps: Iterable[Node[Any]], new_id: NewId) -> Node[Any]:
    regular = _regular(_spliced_steps(steps))
    frozen: list[Node[Any]] = []
    for step in regular:
        if isinstance(step, Chord):
            header = _frozen_group(step.header, new_id, counted=True)
            # Here the body is a signature, a group or a chord, and freezing keeps it so.
            frozen.append(Chord(header, freeze(step.body, new_id)))
        else:
            frozen.append(freeze(step, new_id))
    return frozen[0] if len(frozen) == 1 else Chain(tuple(frozen))


def _spliced_steps(steps: Iterable[Node[Any]]) -> list[Node[Any]]:
    """Splice chains in, take groups of one for their member and leave empty groups out, as Celery does in a chain."""
    found: list[Node[Any]] = []
    empty: Node[Any] | None = None
    pending = deque(steps)
    while pending:
        step = pending.popleft()
        if isinstance(step, Chain):
            pending.extendleft(reversed(step.steps))
        elif isinstance(step, Group) and len(step.members) == 1:
            pending.appendleft(step.members[0])
        elif isinstance(step, Group) and not step.members:
            empty = step
        else:
            found.append(step)
    return found if found or empty is None else [empty]


def _regular(steps: list[Node[Any]]) -> list[Node[Any]]:
    """Make a chord of every group and the step after it, and move all but the first step out of a chord's body."""
    regular: deque[Node[Any]] = deque()
    for step in reversed(steps):
        body = None
        if isinstance(step, Group) and regular:
            step = Chord(step, regular.popleft())
        if isinstance(step, Chord):
            body = _spliced_steps(step.body.steps) if isinstance(step.body, Chain) else [step.body]
        if not body:
            # A chord without a body is its header.
            regular.appendleft(step.header if isinstance(step, Chord) else step)
            continue
        assert isinstance(step, Chord)
        first, *rest = _regular(body) if len(body) > 1 or isinstance(body[0], Chord) else body
        if isinstance(first, Group) and (rest or regular):
            first = Chord(first, rest.pop(0) if rest else regular.popleft())
        regular.extendleft(reversed(rest))
        regular.appendleft(Chord(step.header, first))
    return list(regular)
