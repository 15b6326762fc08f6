"""Writes a workflow as text that Mermaid or Graphviz draws.

Rules: this module is pure. Each node of the drawing is a task. In a frozen workflow it is named by its id, so that its
state can be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import Any

import msgspec

from celeriac.canvas.freeze import freeze
from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature, checked, leaves
from celeriac.wire.result import FAILURE, REVOKED, SUCCESS

_COLOURS = {SUCCESS: "#c8e6c9", FAILURE: "#ffcdd2", REVOKED: "#e0e0e0"}


class _Drawing(msgspec.Struct, frozen=True):
    """The ids of the tasks that a part begins with, and of those that it ends with."""

    begins: Sequence[str]
    ends: Sequence[str]


def mermaid(workflow: Node[Any], states: Mapping[str, str] | None = None) -> str:
    """Return a Mermaid flowchart (mermaid.js.org, ``flowchart LR``).

    :param states: task id to state, shown by colours; the ids are those of a result's ``workflow``.
    """
    tasks, arrows = _read(workflow)
    lines = ["flowchart LR"]
    names = {task_id: f"t{number}" for number, task_id in enumerate(tasks)}
    lines += [f'    {names[task_id]}["{_escaped(label)}"]' for task_id, label in tasks.items()]
    lines += [f"    {names[before]} --> {names[after]}" for before, after in arrows]
    for task_id, state in (states or {}).items():
        if task_id in names and state in _COLOURS:
            lines.append(f"    style {names[task_id]} fill:{_COLOURS[state]}")
    return "\n".join(lines) + "\n"


def graphviz(workflow: Node[Any], states: Mapping[str, str] | None = None) -> str:
    """Return a graph in Graphviz's language. Parameters as for ``mermaid``."""
    tasks, arrows = _read(workflow)
    lines = ["digraph workflow {", "    rankdir=LR;", "    node [shape=box, style=filled, fillcolor=white];"]
    for task_id, label in tasks.items():
        colour = _COLOURS.get((states or {}).get(task_id, ""), "")
        fill = f', fillcolor="{colour}"' if colour else ""
        lines.append(f"    {_quoted(task_id)} [label={_quoted(label)}{fill}];")
    lines += [f"    {_quoted(before)} -> {_quoted(after)};" for before, after in arrows]
    return "\n".join([*lines, "}"]) + "\n"


def _read(workflow: Node[Any]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return every task's id and text, and the arrows between them."""
    numbers = count()
    frozen = freeze(checked(workflow), lambda: f"new-{next(numbers)}")
    tasks = {leaf.id: str(leaf) for leaf in leaves(frozen) if leaf.id is not None}
    arrows: dict[tuple[str, str], None] = {}
    _draw(frozen, arrows)
    place = {task_id: number for number, task_id in enumerate(tasks)}
    return tasks, sorted(arrows, key=lambda arrow: (place[arrow[0]], place[arrow[1]]))


def _draw(node: Node[Any], arrows: dict[tuple[str, str], None]) -> _Drawing:
    match node:
        case Signature():
            assert node.id is not None, "a signature was not frozen"
            return _Drawing((node.id,), (node.id,))
        case Group(members=members):
            parts = [_draw(member, arrows) for member in members]
            return _Drawing(
                [task for part in parts for task in part.begins],
                [task for part in parts for task in part.ends],
            )
        case Chain(steps=steps):
            return _in_a_row([_draw(step, arrows) for step in steps], arrows)
        case Chord(header=header, body=body):
            return _in_a_row([_draw(header, arrows), _draw(body, arrows)], arrows)
    raise TypeError(f"{type(node).__name__} is no node")


def _in_a_row(parts: Sequence[_Drawing], arrows: dict[tuple[str, str], None]) -> _Drawing:
    parts = [part for part in parts if part.begins] or [_Drawing((), ())]
    for before, after in pairwise(parts):
        arrows.update(dict.fromkeys(_pairs(before.ends, after.begins)))
    return _Drawing(parts[0].begins, parts[-1].ends)


def _pairs(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((one, other) for one in before for other in after)


def _escaped(label: str) -> str:
    return label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\n", " ")


def _quoted(label: str) -> str:
    escaped = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
