"""The nodes of workflows: a signature, a chain, a group, a chord.

Rules: a node is never changed in place; ``set``, ``link`` and the others return a changed copy. Only signatures have
options: an option that is set on a composite goes to the signatures inside that it concerns. A node has no id until
``freeze``. It may hold the outlet of the app that made it, so that it can be sent; the outlet is never part of a
message.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from celeriac.canvas.options import AT_HOME, DESTINATION, check_option, check_stamp, shared_out
from celeriac.errors import ConfigError, MalformedMessage
from celeriac.porting import SIGNATURE, explains
from celeriac.wire.preview import preview
from celeriac.wire.signature import (
    CHAIN,
    CHORD,
    COMPOSITE_NAMES,
    GROUP,
    ITERATING_TYPES,
    as_list,
    read,
    write,
)

R = TypeVar("R")
S = TypeVar("S")


class Outlet(Protocol):
    """Sends workflows: the way out of an app."""

    def send_workflow(self, node: Node[Any]) -> Coroutine[Any, Any, Any]:
        """Send the workflow; to be awaited."""
        ...

    def delay_workflow(self, node: Node[Any]) -> Any:
        """Send the workflow and block until the broker has it."""
        ...


@explains("a part of a workflow", SIGNATURE)
class Node(msgspec.Struct, Generic[R], frozen=True):
    """A workflow or a part of one, which returns ``R``."""

    @property
    def parts(self) -> tuple[Node[Any], ...]:
        """The nodes directly inside."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return Celery's dictionary form. Arguments are not checked here, so no ``EncodeError`` is raised."""
        raise NotImplementedError

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Node[R]:
        """Return a copy with ``args`` before its own, ``kwargs`` over its own, and further options.

        In a composite the arguments go to the tasks that run first. An immutable signature takes none.
        """
        raise NotImplementedError

    def set(self, *, immutable: bool | None = None, **options: Any) -> Node[R]:
        """Return a copy with these send options; with ``immutable=True`` it takes no value from the task before it.

        In a composite, delays (``countdown``, ``eta``) go to the tasks that run first, ``task_id`` to the task that
        gives the value, and all other options to every part. Raises ``ConfigError`` for an unknown option.
        """
        raise NotImplementedError

    def link(self, *callbacks: Node[Any]) -> Node[R]:
        """Return a copy that sends these callbacks, with its value, when it has succeeded.

        In a chain the callbacks follow the last step, in a chord the body, in a group every member, with its own value.
        """
        raise NotImplementedError

    def link_error(self, *errbacks: Node[Any]) -> Node[R]:
        """Return a copy that calls these errbacks when it has failed.

        In a chain the errbacks belong to every step, in a group to every member, and in a chord to the body, which
        fails when a member of the header does. A group with a step after it in a chain is the header of a chord.
        """
        raise NotImplementedError

    def stamp(self, **stamps: Any) -> Node[R]:
        """Return a copy whose every task carries these stamps (Celery: stamping).

        Callbacks, errbacks and a workflow that replaces a task get them, too; calls that a task sends itself do not.
        """
        raise NotImplementedError

    def __or__(self, other: Node[S]) -> Node[S]:
        """Run ``other`` with the value of this node. Raises ``ConfigError`` for an object that is no node."""
        return chain(self, other)

    def __ror__(self, other: Node[Any]) -> Node[R]:
        return chain(checked(other), self)

    def __repr__(self) -> str:
        return str(self)

    def send(self) -> Coroutine[Any, Any, Any]:
        """Send the workflow; to be awaited. Returns a ``Result``, or a ``GroupResult`` if it ends in a group.

        Raises as ``Task.send``, and ``ConfigError`` for a chord that the result backend cannot count.
        """
        return self._outlet().send_workflow(self)

    def delay(self) -> Any:
        """Send the workflow and block until the broker has it; otherwise as ``send``. For code without a loop."""
        return self._outlet().delay_workflow(self)

    def _outlet(self) -> Outlet:
        for leaf in leaves(self):
            if leaf.outlet is not None:
                return leaf.outlet
        if isinstance(self, Chain) and not self.steps:
            raise ConfigError("chain() has no steps, so that there is nothing to send: give it signatures")
        raise ConfigError(f"{self} was made by no app: send it with app.send(...)")


class Signature(Node[R], frozen=True):
    """One call of one task; made by ``task.s``, ``task.si`` and ``app.signature``.

    :param args: the arguments; the value of the task before it in a workflow is put in front of them.
    :param options: the options of its sending, under Celery's names for them in messages.
    :param immutable: whether it takes no value from the task before it.
    :param convert: converts the decoded value to the task's return type, if the task is known here.
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    immutable: bool = False
    outlet: Outlet | None = None
    convert: Callable[[Any], Any] | None = None

    @property
    def parts(self) -> tuple[Node[Any], ...]:
        return ()

    @property
    def id(self) -> str | None:
        """The call's id; ``None`` before it is frozen, where none was given."""
        return self.options.get("task_id")

    def __str__(self) -> str:
        named = [f"{name}={preview(value, 40)}" for name, value in self.kwargs.items()]
        if self.task in ITERATING_TYPES and isinstance(self.kwargs.get("task"), Mapping):
            each = f"{self.kwargs['task'].get('task')}.{self.task.removeprefix('celery.')}"
            return f"{each}({preview(self.kwargs.get('it'), 40)})"
        return f"{self.task}({', '.join([*(preview(value, 40) for value in self.args), *named])})"

    def to_dict(self) -> dict[str, Any]:
        options = {name: value for name, value in self.options.items() if name not in AT_HOME}
        return write(self.task, self.args, self.kwargs, options, immutable=self.immutable)

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Signature[R]:
        copy = self
        if (args or kwargs) and not self.immutable:
            copy = msgspec.structs.replace(
                self, args=(*args, *self.args), kwargs={**self.kwargs, **(kwargs or {})}
            )
        return copy.set(**options) if options else copy

    def set(self, *, immutable: bool | None = None, **options: Any) -> Signature[R]:
        for name, value in options.items():
            check_option(name, value)
        kept = self.options
        if not DESTINATION.isdisjoint(options):
            kept = {name: value for name, value in kept.items() if name not in DESTINATION}
        return msgspec.structs.replace(
            self,
            options={**kept, **options},
            immutable=self.immutable if immutable is None else immutable,
        )

    def link(self, *callbacks: Node[Any]) -> Signature[R]:
        return self._linked("link", callbacks)

    def link_error(self, *errbacks: Node[Any]) -> Signature[R]:
        return self._linked("link_error", errbacks)

    def stamp(self, **stamps: Any) -> Signature[R]:
        for name in stamps:
            check_stamp(name)
        names = dict.fromkeys([*(self.options.get("stamped_headers") or ()), *stamps])
        return self.over(stamps | {"stamped_headers": list(names)})

    def over(self, options: Mapping[str, Any]) -> Signature[R]:
        """Return a copy with these options, which are not checked."""
        return msgspec.structs.replace(self, options={**self.options, **options}) if options else self

    def under(self, options: Mapping[str, Any]) -> Signature[R]:
        """Return a copy with these options, except those that it has already."""
        return msgspec.structs.replace(self, options={**options, **self.options}) if options else self

    def _linked(self, name: str, nodes: Sequence[Node[Any]]) -> Signature[R]:
        links = [*as_list(self.options.get(name)), *(_as_dict(node) for node in nodes)]
        return self.over({name: links})


class Chain(Node[R], frozen=True):
    """Steps that run one after the other, each with the value of the step before; its value is the last step's."""

    steps: tuple[Node[Any], ...] = ()

    @property
    def parts(self) -> tuple[Node[Any], ...]:
        return self.steps

    def __str__(self) -> str:
        return " | ".join(str(step) for step in self.steps) or "chain()"

    def to_dict(self) -> dict[str, Any]:
        options = {"task_id": last_id(self)} if last_id(self) is not None else {}
        tasks = [step.to_dict() for step in self.steps]
        return write(COMPOSITE_NAMES[CHAIN], kwargs={"tasks": tasks}, options=options, kind=CHAIN)

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Chain[R]:
        copy = self._changed(0, lambda step: step.clone(args, kwargs))
        return copy.set(**options) if options else copy

    def set(self, *, immutable: bool | None = None, **options: Any) -> Chain[R]:
        first, ending, everywhere = shared_out(options)
        steps = [step.set(**everywhere) for step in self.steps]
        if steps:
            steps[0] = steps[0].set(immutable=immutable, **first)
            steps[-1] = steps[-1].set(**ending)
        return Chain(tuple(steps))

    def link(self, *callbacks: Node[Any]) -> Chain[R]:
        return self._changed(-1, lambda step: step.link(*callbacks))

    def link_error(self, *errbacks: Node[Any]) -> Chain[R]:
        if not self.steps:
            return self
        *before, last = self.steps
        return Chain((*(_linked_amid(step, errbacks) for step in before), last.link_error(*errbacks)))

    def stamp(self, **stamps: Any) -> Chain[R]:
        return Chain(tuple(step.stamp(**stamps) for step in self.steps))

    def _changed(self, at: int, change: Callable[[Node[Any]], Node[Any]]) -> Chain[R]:
        if not self.steps:
            return self
        steps = list(self.steps)
        steps[at] = change(steps[at])
        return Chain(tuple(steps))


class Group(Node[list[R]], Generic[R], frozen=True):
    """Members that run side by side; its value is the list of their values, in their order.

    The members of a group inside become members of the outer one, as in Celery. A step after a group makes a chord.

    :param id: the group's id; without one it gets a new id when it is frozen.
    """

    members: tuple[Node[R], ...] = ()
    id: str | None = None

    @property
    def parts(self) -> tuple[Node[Any], ...]:
        return self.members

    def __str__(self) -> str:
        shown = [str(member) for member in self.members[:3]]
        if len(self.members) > 3:
            shown.append(f"… {len(self.members) - 3} more")
        return f"group({', '.join(shown)})"

    def __len__(self) -> int:
        return len(self.members)

    def __or__(self, other: Node[S]) -> Chord[S]:
        """Collect the members' values and run ``other`` with the list of them."""
        return chord(self, other)

    def to_dict(self) -> dict[str, Any]:
        options = {"task_id": self.id} if self.id is not None else {}
        tasks = [member.to_dict() for member in self.members]
        return write(COMPOSITE_NAMES[GROUP], kwargs={"tasks": tasks}, options=options, kind=GROUP)

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Group[R]:
        copy = self._each(lambda member: member.clone(args, kwargs)) if args or kwargs else self
        return copy.set(**options) if options else copy

    def set(self, *, immutable: bool | None = None, **options: Any) -> Group[R]:
        group_id = options.pop("task_id", self.id)
        copy = self._each(lambda member: member.set(immutable=immutable, **options))
        return msgspec.structs.replace(copy, id=group_id)

    def link(self, *callbacks: Node[Any]) -> Group[R]:
        return self._each(lambda member: member.link(*callbacks))

    def link_error(self, *errbacks: Node[Any]) -> Group[R]:
        return self._each(lambda member: member.link_error(*errbacks))

    def stamp(self, **stamps: Any) -> Group[R]:
        return self._each(lambda member: member.stamp(**stamps))

    def _each(self, change: Callable[[Node[R]], Node[R]]) -> Group[R]:
        return Group(tuple(change(member) for member in self.members), self.id)


class Chord(Node[R], frozen=True):
    """A group, and a body that runs once with the list of its members' values; the chord's value is the body's.

    When a member fails, the body fails with ``ChordError``.
    """

    header: Group[Any]
    body: Node[R]

    @property
    def parts(self) -> tuple[Node[Any], ...]:
        return (self.header, self.body)

    def __str__(self) -> str:
        return f"{self.header} | {self.body}"

    def to_dict(self) -> dict[str, Any]:
        header_id = self.header.id
        kwargs = {"kwargs": {}, "header": self.header.to_dict(), "body": self.body.to_dict()}
        options = {"task_id": header_id} if header_id is not None else {}
        return write(COMPOSITE_NAMES[CHORD], kwargs=kwargs, options=options, kind=CHORD)

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Chord[R]:
        copy = Chord(self.header.clone(args, kwargs), self.body)
        return copy.set(**options) if options else copy

    def set(self, *, immutable: bool | None = None, **options: Any) -> Chord[R]:
        first, ending, everywhere = shared_out(options)
        return Chord(
            self.header.set(immutable=immutable, **first, **everywhere),
            self.body.set(**ending, **everywhere),
        )

    def link(self, *callbacks: Node[Any]) -> Chord[R]:
        return Chord(self.header, self.body.link(*callbacks))

    def link_error(self, *errbacks: Node[Any]) -> Chord[R]:
        return Chord(self.header, self.body.link_error(*errbacks))

    def stamp(self, **stamps: Any) -> Chord[R]:
        return Chord(self.header.stamp(**stamps), self.body.stamp(**stamps))


Nodes: TypeAlias = Node[Any] | Iterable[Node[Any]]


def chain(*steps: Nodes) -> Chain[Any]:
    """Return a chain of these steps, or of the steps in one iterable. Chains inside become part of it."""
    flat: list[Node[Any]] = []
    for step in _nodes(steps):
        flat += step.steps if isinstance(step, Chain) else [step]
    return Chain(tuple(flat))


def group(*members: Nodes) -> Group[Any]:
    """Return a group of these members, or of the members in one iterable."""
    return Group(tuple(_nodes(members)))


def chord(header: Nodes, body: Node[S]) -> Chord[S]:
    """Return a chord: ``body`` runs with the list of what the header's members return."""
    return Chord(header if isinstance(header, Group) else group(header), checked(body))


def leaves(node: Node[Any]) -> Iterator[Signature[Any]]:
    """Yield every signature of a workflow; callbacks and errbacks are not part of it."""
    pending = [node]
    while pending:
        found = pending.pop()
        if isinstance(found, Signature):
            yield found
        pending.extend(reversed(found.parts))


def has_chord(node: Node[Any]) -> bool:
    """Whether the workflow has a chord, whose parts the result store must count."""
    pending = [node]
    while pending:
        found = pending.pop()
        if isinstance(found, Chord):
            return True
        if isinstance(found, Chain) and any(isinstance(step, Group) for step in found.steps[:-1]):
            return True
        pending.extend(found.parts)
    return False


def last_id(node: Node[Any]) -> str | None:
    """Return the id of the call, or group, that gives the workflow's value."""
    match node:
        case Signature() | Group():
            return node.id
        case Chain(steps=(*_, last)):
            return last_id(last)
        case Chord(body=body):
            return last_id(body)
    return None


def _linked_amid(node: Node[Any], errbacks: Sequence[Node[Any]]) -> Node[Any]:
    """Return a step before the last one with these errbacks; a group at its end becomes a header, which takes none."""
    match node:
        case Group(members=(member,)):
            return Group((_linked_amid(member, errbacks),), node.id)
        case Group():
            return node
        case Chain(steps=steps):
            return Chain(tuple(_linked_amid(step, errbacks) for step in steps))
        case Chord(header=header, body=body):
            return Chord(header, _linked_amid(body, errbacks))
    return node.link_error(*errbacks)


def checked(node: Any) -> Node[Any]:
    """Return the node that was given. Raises ``ConfigError`` for an object that is no node."""
    if isinstance(node, Node):
        return node
    hint = "from_dict(...) makes one of Celery's dictionary" if isinstance(node, Mapping) else ""
    raise ConfigError(
        f"{node!r:.100} is no part of a workflow: give signatures, such as task.s(1), chains, groups and chords"
        + (hint and f"; {hint}")
    )


def _nodes(given: Sequence[Nodes]) -> list[Node[Any]]:
    if len(given) == 1:
        [only] = given
        if isinstance(only, Iterable) and not isinstance(only, Node | str | bytes | Mapping):
            given = list(only)
    return [checked(node) for node in given]


def _as_dict(node: Any) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return checked(node).to_dict()
    try:
        read(dict(node))
    except MalformedMessage as error:
        raise ConfigError(f"{error}; give signatures, such as task.s(1), or Celery's dictionaries") from None
    return dict(node)
