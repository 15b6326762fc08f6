"""Reads nodes from Celery's dictionary form, as any version of Celery writes it.

Rules: the options of a composite go where Celery applies them. ``task_id``, ``link``, ``chord`` and the place in a
group go to the part that gives the composite's value, and ``link_error`` goes to every step or member. All others go to
the first step of a chain, the members of a group, or the header of a chord. ``MalformedMessage`` names a signature that
cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature, chain
from celeriac.canvas.options import DELAYS
from celeriac.errors import ConfigError, MalformedMessage
from celeriac.wire.signature import (
    CHAIN,
    CHORD,
    CHUNKS,
    GROUP,
    STARMAP,
    WireSignature,
    as_list,
    read,
    write,
)

PLACE = ("group_id", "group_index", "chord")
"""Options that say which group and chord a task is a part of."""

_FOR_THE_END = ("task_id", *PLACE)
_APART = frozenset({*_FOR_THE_END, "link", "link_error", "chain", "root_id", "parent_id"})


def from_dict(signature: Any) -> Node[Any]:
    """Return the node of a signature. Raises ``MalformedMessage`` for anything else, and for one nested too deeply."""
    try:
        return _node(signature)
    except RecursionError:
        raise MalformedMessage("a signature nests too deeply") from None
    except ConfigError as error:
        raise MalformedMessage(str(error)) from None


def _node(signature: Any) -> Node[Any]:
    if isinstance(signature, Node):
        return signature
    wire = read(signature)
    if wire.kind is None:
        return Signature(wire.task, tuple(wire.args), wire.kwargs, wire.options, wire.immutable)
    return {CHAIN: _chain, GROUP: _group, CHORD: _chord, CHUNKS: _chunks}[wire.kind](wire)


def _chain(wire: WireSignature) -> Node[Any]:
    steps = chain([_node(step) for step in _listed(wire, "tasks")])
    if not steps.steps:
        return steps
    node = _with_arguments(steps, wire)
    assert isinstance(node, Chain)
    options = {name: value for name, value in wire.options.items() if name not in _APART}
    node = Chain((_over(node.steps[0], options), *node.steps[1:]))
    return _followed(_ended(node, wire.options), wire.options)


def _group(wire: WireSignature) -> Node[Any]:
    tasks = wire.kwargs.get("tasks")
    # Celery writes a group made of a group with the inner one in place of the list.
    if isinstance(tasks, Mapping):
        inner = _node(tasks)
        members: Sequence[Node[Any]] = inner.members if isinstance(inner, Group) else (inner,)
    else:
        members = [_node(member) for member in _listed(wire, "tasks")]
    group: Node[Any] = Group(tuple(members), _text(wire.options.get("task_id")))
    shared = {
        name: value
        for name, value in wire.options.items()
        if name not in _APART and not (value is None and name in ("root_id", "parent_id"))
    }
    place = {name: wire.options[name] for name in ("group_id", "chord") if wire.options.get(name) is not None}
    group = placed(_over(group, shared), place)
    return _followed(_with_arguments(_linked(group, wire.options), wire), wire.options)


def _chord(wire: WireSignature) -> Node[Any]:
    header, given = wire.kwargs.get("header"), wire.kwargs.get("body")
    if isinstance(header, Mapping):
        members = _node(header)
        group = members if isinstance(members, Group) else Group((members,))
    else:
        group = Group(tuple(_node(member) for member in _listed(wire, "header")))
    options = {name: value for name, value in wire.options.items() if name not in _APART}
    placed = _over(group, options).clone(wire.args, _partial(wire.kwargs.get("kwargs")))
    assert isinstance(placed, Group)
    if wire.options.get("task_id") is not None:
        placed = Group(placed.members, _text(wire.options["task_id"]))
    if given is None:
        return _followed(placed, wire.options)
    undelayed = {name: value for name, value in options.items() if name not in DELAYS}
    body = _ended(_over(_node(given), undelayed), {**wire.options, "task_id": None})
    return _followed(Chord(placed, body), wire.options)


def _partial(kwargs: Any) -> Mapping[str, Any] | None:
    """Return the header's keyword arguments, unwrapped: Celery 4 wraps them once more each time it writes a chord."""
    while (
        isinstance(kwargs, Mapping) and kwargs.keys() == {"kwargs"} and isinstance(kwargs["kwargs"], Mapping)
    ):
        kwargs = kwargs["kwargs"]
    return kwargs if isinstance(kwargs, Mapping) else None


def _chunks(wire: WireSignature) -> Node[Any]:
    """Return the group of ``celery.starmap`` that chunks stand for."""
    items, size = wire.kwargs.get("it"), wire.kwargs.get("n")
    if not isinstance(items, list | tuple) or not isinstance(size, int) or size < 1:
        raise MalformedMessage("chunks without a list `it` and a whole number `n`")
    task = wire.kwargs.get("task")
    pieces = [list(items[start : start + size]) for start in range(0, len(items), size)]
    members = [{"task": task, "it": piece} for piece in pieces]
    return _group(
        WireSignature(
            "celery.group",
            [],
            {"tasks": [write(STARMAP, kwargs=member) for member in members]},
            wire.options,
            GROUP,
        )
    )


def _with_arguments(node: Node[Any], wire: WireSignature) -> Node[Any]:
    """Give a composite's own arguments to the tasks that run first."""
    node = node.clone(wire.args)
    return node.set(immutable=True) if wire.immutable else node


def _ended(node: Node[Any], options: Mapping[str, Any]) -> Node[Any]:
    """Put the options that concern the end of a workflow on its end, and its errbacks on every step."""
    place = {name: options[name] for name in _FOR_THE_END if options.get(name) is not None}
    return _linked(placed(node, place), options)


def _linked(node: Node[Any], options: Mapping[str, Any]) -> Node[Any]:
    errbacks, callbacks = as_list(options.get("link_error")), as_list(options.get("link"))
    if errbacks:
        node = node.link_error(*errbacks)
    return node.link(*callbacks) if callbacks else node


def _followed(node: Node[Any], options: Mapping[str, Any]) -> Node[Any]:
    """Append the rest of the chain, which Celery puts into an option of this step; the next step is last in it."""
    rest = as_list(options.get("chain"))
    return chain(node, *(_node(step) for step in reversed(rest))) if rest else node


def placed(node: Node[Any], place: Mapping[str, Any]) -> Node[Any]:
    """Return the node with these options on its end, except those that the end has already.

    The option ``chord`` always replaces one that is there: Celery 4 writes a chord into its header before it knows the
    chord's size and its later steps.
    """
    if not place:
        return node
    match node:
        case Signature(options=options):
            stale = "chord" in options and "chord" in place
            return node.under(place).over({"chord": place["chord"]}) if stale else node.under(place)
        case Chain(steps=(*before, last)):
            return Chain((*before, placed(last, place)))
        case Chord(header=header, body=body):
            return Chord(header, placed(body, place))
        case Group(members=members, id=group_id):
            shared = {name: value for name, value in place.items() if name in ("group_id", "chord")}
            return Group(tuple(placed(member, shared) for member in members), group_id)
    return node


def _over(node: Node[Any], options: Mapping[str, Any]) -> Node[Any]:
    """Return the node with these options on every part to which a composite passes them."""
    match node:
        case _ if not options:
            return node
        case Signature():
            return node.over(options)
        case Chain(steps=(first, *rest)):
            return Chain((_over(first, options), *rest))
        case Chord(header=header, body=body):
            header_node = _over(header, options)
            assert isinstance(header_node, Group)
            undelayed = {name: value for name, value in options.items() if name not in DELAYS}
            return Chord(header_node, _over(body, undelayed))
        case Group(members=members, id=group_id):
            return Group(tuple(_over(member, options) for member in members), group_id)
    return node


def _listed(wire: WireSignature, name: str) -> Iterable[Any]:
    value = wire.kwargs.get(name)
    if not isinstance(value, list | tuple):
        raise MalformedMessage(f"{wire.task} without a list of {name}: {value!r:.100}")
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
