"""Turns a frozen workflow into its first messages, and the chords that count their tasks.

Rules: this module is pure. The messages are in the order of the workflow. Later tasks travel inside the messages, as in
Celery: the rest of a chain in ``chain``, the next step last, and the body of a chord in every member's ``chord``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from celeriac.canvas.celery_form import placed
from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature
from celeriac.errors import MalformedMessage
from celeriac.wire.signature import as_list, read_expires, read_time
from celeriac.wire.steps import as_steps
from celeriac.wire.task import TaskMessage

SENDING = ("queue", "exchange", "routing_key", "countdown", "serializer", "compression")
"""Options that say where and how a message goes; a follow-up takes them unchanged."""


class FollowUp(msgspec.Struct, frozen=True):
    """A message to publish, with options of its sending.

    :param queue: the queue that the signature names; ``None`` leaves it to the task's options and the routes.
    :param countdown: seconds from now until it is due, if the signature has a countdown.
    :param expires: seconds from now, or the time, after which it must not run.
    """

    message: TaskMessage
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    countdown: float | None = None
    eta: datetime | None = None
    expires: float | datetime | None = None
    serializer: str | None = None
    compression: str | None = None
    retry: Any = None


class Opening(msgspec.Struct, frozen=True):
    """A chord that must be known to the result backend before its parts are published.

    :param size: how many parts the chord waits for.
    """

    chord_id: str
    size: int


class Origin(msgspec.Struct, frozen=True):
    """The sender of a workflow: the fields that every message of the workflow inherits.

    :param root_id: the root id; with ``None`` it is the id of the first task, or of a group or chord that is first.
    :param source: the value of the header ``origin``.
    """

    parent_id: str | None = None
    root_id: str | None = None
    reply_to: str | None = None
    stamped_headers: Sequence[str] = ()
    stamps: Mapping[str, Any] = {}
    protocol: Literal[1, 2] = 2
    source: str | None = None


class Launch:
    """Collects the messages and chords of a workflow, part by part."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.follow_ups: list[FollowUp] = []
        self.openings: list[Opening] = []

    def add(self, node: Node[Any], args: Sequence[Any] = (), rest: Sequence[dict[str, Any]] = ()) -> None:
        """Add a frozen workflow.

        :param args: values for the tasks that run first.
        :param rest: the later steps of the chain that the workflow is a step of, in wire order.
        """
        if args:
            node = node.clone(args)
        self._add(followed_by(node, rest), root=self.origin.root_id or _root(node))

    def _add(self, node: Node[Any], root: str | None) -> None:
        match node:
            case Signature():
                self.follow_ups.append(_follow_up(node, self.origin, root))
            case Chain(steps=(first, *later)):
                self._add(followed_by(first, [step.to_dict() for step in reversed(later)]), root)
            case Group():
                self._add_members(node, root, {"group_id": node.id})
            case Chord():
                self._add_chord(node, root)

    def _add_members(self, group: Group[Any], root: str | None, place: Mapping[str, Any]) -> None:
        for member in group.members:
            self._add(placed(member, place), root)

    def _add_chord(self, chord: Chord[Any], root: str | None) -> None:
        header = chord.header
        body = placed(chord.body, {"group_id": header.id})
        if not header.members:
            self._add(body.clone([[]]), root)
            return
        assert header.id is not None, "a chord was not frozen"
        size = sum(map(_parts, header.members))
        # Celery 5 asks the backend for the size, Celery 4 the body: with both, workers of every kind count alike.
        signature = body.to_dict() | {"chord_size": size}
        self.openings.append(Opening(header.id, size))
        self._add_members(header, root, {"group_id": header.id, "chord": signature})


def followed_by(node: Node[Any], rest: Sequence[dict[str, Any]]) -> Node[Any]:
    """Return the workflow with further steps after it, in wire order, carried by its first message."""
    if not rest:
        return node
    match node:
        case Signature(options=options):
            own = as_steps(options.get("chain"))
            return node.over({"chain": [*rest, *own] if own else rest})
        case Chain(steps=(first, *later)):
            # All steps are in one list, since Celery drops a further list that a later step carries.
            return followed_by(first, [*rest, *(step.to_dict() for step in reversed(later))])
        case Chord(header=header, body=body):
            return Chord(header, followed_by(body, rest))
    raise MalformedMessage(f"{node} gives no one value that a next step could take")


def _parts(member: Node[Any]) -> int:
    """Return how many parts a frozen member of a header counts as: one, or the members of a group that Celery froze."""
    match member:
        case Chain(steps=(*_, last)):
            return _parts(last)
        case Group(members=members):
            return sum(map(_parts, members))
    return 1


def _root(node: Node[Any]) -> str | None:
    match node:
        case Signature():
            return node.id
        case Chain(steps=(first, *_)):
            return _root(first)
        case Group():
            return node.id
        case Chord(header=header):
            return header.id
    return None


def _follow_up(signature: Signature[Any], origin: Origin, root: str | None) -> FollowUp:
    options = signature.options
    retry = options.get("retry")
    return FollowUp(
        message_of(signature, origin, root),
        eta=read_time(options.get("eta")),
        expires=read_expires(options.get("expires")),
        retry=None if isinstance(retry, bool) else retry,
        **{name: options[name] for name in SENDING if options.get(name) is not None},
    )


def shown(options: Mapping[str, Any], name: str) -> str | None:
    """Return what a sender lets be shown in place of the arguments; ``None`` where it says nothing of them."""
    text = options.get(name)
    return text if isinstance(text, str) else None


def message_of(signature: Signature[Any], origin: Origin, root: str | None = None) -> TaskMessage:
    """Return the message of a frozen signature."""
    options = signature.options
    task_id = signature.id
    assert task_id is not None, "a signature was not frozen"
    stamped = dict.fromkeys([*origin.stamped_headers, *as_list(options.get("stamped_headers"))])
    stamps = {**origin.stamps, **{name: options[name] for name in stamped if name in options}}
    return TaskMessage(
        id=task_id,
        task=signature.task,
        args=list(signature.args),
        kwargs=dict(signature.kwargs),
        root_id=options.get("root_id") or root or task_id,
        parent_id=options.get("parent_id") or origin.parent_id,
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        callbacks=as_list(options.get("link")),
        errbacks=as_list(options.get("link_error")),
        chain=as_steps(options.get("chain")),
        chord=options.get("chord"),
        time_limit=options.get("time_limit"),
        soft_time_limit=options.get("soft_time_limit"),
        ignore_result=options.get("ignore_result"),
        shadow=options.get("shadow"),
        replaced_task_nesting=options.get("replaced_task_nesting") or 0,
        priority=options.get("priority") or 0,  # its own, as Celery has it: none of what comes before
        reply_to=options.get("reply_to") or origin.reply_to,
        headers=dict(options.get("headers") or {}),
        stamped_headers=list(stamped) or None,
        stamps=stamps,
        origin=origin.source,
        correlation_id=task_id,
        args_repr=shown(options, "argsrepr"),
        kwargs_repr=shown(options, "kwargsrepr"),
        protocol=options.get("protocol") or origin.protocol,
    )
