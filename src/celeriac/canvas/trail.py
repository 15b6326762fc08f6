"""The trail of a workflow: the ids of its results, and which result came before which.

Rules: this module is pure. A trail starts at the result that gives the workflow's value; its parent is the result of
the step before. Source: Celery, result tuples (``AsyncResult.as_tuple``, ``GroupResult.as_tuple``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature
from celeriac.errors import MalformedMessage

DEPTH = 50
"""The most steps in a result tuple: each nests two lists deeper, and readers of JSON allow some hundred levels."""


class Trail(msgspec.Struct, frozen=True):
    """One result, or a group of them.

    :param members: the members of a group; ``None`` for the result of one task.
    :param node: the signature, where it is known.
    """

    id: str
    parent: Trail | None = None
    members: tuple[Trail, ...] | None = None
    node: Signature[Any] | None = None

    def from_the_first(self) -> list[Trail]:
        """Return the results before this one, the earliest first, and then this one."""
        steps = [self]
        while (parent := steps[-1].parent) is not None:
            steps.append(parent)
        return steps[::-1]

    def as_tuple(self) -> list[Any]:
        """Return Celery's result tuple; of a long chain it holds only the last ``DEPTH`` steps."""
        written: Any = None
        for step in self.from_the_first()[-DEPTH:]:
            members = None if step.members is None else [member.as_tuple() for member in step.members]
            written = [[step.id, written], members]
        return written  # type: ignore[no-any-return]


def trail(node: Node[Any], before: Trail | None = None) -> Trail:
    """Return the trail of a frozen workflow, from the result that gives its value back to the first.

    Raises ``MalformedMessage`` for an empty workflow.
    """
    match node:
        case Signature():
            assert node.id is not None, "a signature was not frozen"
            return Trail(node.id, before, node=node)
        case Chain(steps=steps):
            for step in steps:
                before = trail(step, before)
            if not steps or before is None:
                raise MalformedMessage("a chain without steps, which gives no value")
            return before
        case Group(members=members):
            assert node.id is not None, "a group was not frozen"
            return Trail(node.id, before, tuple(trail(member) for member in members))
        case Chord(header=header, body=body):
            return trail(body, trail(header, before))
    raise TypeError(f"{type(node).__name__} is no node")
