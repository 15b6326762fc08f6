"""Workflows as plain data, the value each must have, and a fleet of workers in miniature that runs them.

A plan is ``("task", label, immutable)``, ``("chain", plans)``, ``("group", plans)`` or ``("chord", plans, plan)``.
Every task returns its label and what it was given, so a value tells all that ran before it.
"""

import itertools
from random import Random
from typing import Any

from hypothesis import strategies

from celeriac.canvas.advance import Advance, Part, after_parts, after_success, obstacle, part_of
from celeriac.canvas.freeze import freeze
from celeriac.canvas.launch import Launch, Origin
from celeriac.canvas.nodes import Node, Signature, chain, chord, group
from celeriac.canvas.trail import Trail, trail
from celeriac.wire.content import Codecs
from celeriac.wire.result import SUCCESS
from celeriac.wire.task import TaskMessage, decode, encode

Plan = tuple[Any, ...]
NOTHING = object()

tasks = strategies.tuples(strategies.just("task"), strategies.sampled_from("abcdef"), strategies.booleans())


def _more(inner: strategies.SearchStrategy[Plan]) -> strategies.SearchStrategy[Plan]:
    some = strategies.lists(inner, min_size=1, max_size=4).map(tuple)
    return strategies.one_of(
        strategies.tuples(strategies.just("chain"), some),
        strategies.tuples(strategies.just("group"), some),
        strategies.tuples(strategies.just("chord"), some, inner),
    )


plans: strategies.SearchStrategy[Plan] = strategies.recursive(tasks, _more, max_leaves=12)


def build(plan: Plan) -> Node[Any]:
    """Make the workflow of a plan."""
    match plan:
        case ("task", label, immutable):
            return Signature("work", (label,), immutable=immutable)
        case ("chain", steps):
            return chain([build(step) for step in steps])
        case ("group", members):
            return group([build(member) for member in members])
        case ("chord", members, body):
            return chord([build(member) for member in members], build(body))
    raise AssertionError(plan)


def value(plan: Plan, given: Any = NOTHING) -> Any:
    """What the workflow returns, by the rules that users are told."""
    match plan:
        case ("task", label, immutable):
            return [label] if immutable or given is NOTHING else [given, label]
        case ("chain", steps):
            for step in _steps(steps):
                given = value(step, given)
            return given
        case ("group", members):
            return [value(member, given) for member in _members(members)]
        case ("chord", members, body):
            return value(body, [value(member, given) for member in _members(members)])
    raise AssertionError(plan)


def _members(members: tuple[Plan, ...]) -> list[Plan]:
    """A group in a group is spliced into it; a chain of one is that one."""
    found: list[Plan] = []
    for member in members:
        alone = _steps(member[1]) if member[0] == "chain" else [member]
        if len(alone) == 1 and alone[0][0] == "group":
            found += _members(alone[0][1])
        else:
            found.append(member)
    return found


def _steps(steps: tuple[Plan, ...]) -> list[Plan]:
    """A chain in a chain is spliced into it, a group of one in a chain is its member."""
    found: list[Plan] = []
    for step in steps:
        if step[0] == "chain" or (step[0] == "group" and len(step[1]) == 1):
            found += _steps(step[1])
        else:
            found.append(step)
    return found


class Fleet:
    """Runs workflows message by message, each once or more often, in an order that chance gives.

    :param repeats: how often each message is delivered.
    """

    def __init__(self, random: Random, repeats: int = 1) -> None:
        self._random = random
        self._repeats = repeats
        self._codecs = Codecs()
        self._queue: list[TaskMessage] = []
        self._sizes: dict[str, int] = {}
        self._parts: dict[str, dict[tuple[str, int | None], Any]] = {}
        self._done: set[str] = set()
        self.results: dict[str, Any] = {}
        self.bodies: list[str] = []
        self.runs: list[str] = []

    def run(self, node: Node[Any]) -> Any:
        """Return the workflow's value."""
        numbers = itertools.count()
        frozen = freeze(node, lambda: f"id-{next(numbers)}")
        launch = Launch(Origin())
        launch.add(frozen)
        self._send(Advance(launch.follow_ups, launch.openings))
        while self._queue:
            self._deliver(self._queue.pop(self._random.randrange(len(self._queue))))
        return self._read(trail(frozen))

    def _send(self, advance: Advance) -> None:
        self._sizes |= {opening.chord_id: opening.size for opening in advance.openings}
        for follow_up in advance.follow_ups:
            message = decode(encode(follow_up.message, self._codecs), self._codecs)
            assert isinstance(message, TaskMessage)
            self._queue += [message] * self._repeats

    def _deliver(self, message: TaskMessage) -> None:
        assert obstacle(message) is None
        assert not any("chain" in step["options"] for step in message.chain), "Celery drops that"
        self.runs.append(message.id)
        result = message.args[0] if message.task == "celery.accumulate" else message.args
        if message.callbacks or message.chain:
            self._send(after_success(message, result))
        assert self.results.setdefault(message.id, result) == result
        for part in part_of(message, SUCCESS, result):
            self._count(part)

    def _count(self, part: Part) -> None:
        parts = self._parts.setdefault(part.chord_id, {})
        parts[part.task_id, part.index] = part.value
        assert part.size == self._sizes[part.chord_id]
        if len(parts) == part.size and part.chord_id not in self._done:
            self._done.add(part.chord_id)
            self.bodies.append(part.chord_id)
            by_place = sorted(parts.items(), key=lambda item: item[0][1] or 0)
            self._send(after_parts(part, [found for _, found in by_place]))

    def _read(self, left: Trail) -> Any:
        if left.members is not None:
            return [self._read(member) for member in left.members]
        return self.results[left.id]
