"""A workflow drawn as SVG: each task below the one that sent it.

Rules: a task that is its own parent, or whose parent is not known, stands at the top. Siblings of one name that are
more than ``MOST_ALIKE`` are drawn as one box that counts them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec
from markupsafe import Markup

from celeriac.monitor.rows import ENDED, TaskRow
from celeriac.web.showing import shape

MOST_ALIKE = 8
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 170, 44, 16, 34


class Node(msgspec.Struct):
    """One box of the drawing.

    :param count: how many tasks it stands for.
    :param done: how many of them have ended.
    """

    id: str
    name: str
    state: str
    count: int = 1
    done: int = 0
    x: float = 0.0
    y: float = 0.0
    below: list[Node] = []


def draw(tasks: Sequence[TaskRow], up: str) -> Markup:
    """Return the drawing of a workflow's tasks.

    :param up: the path to the dashboard's root, for links.
    """
    tops = arrange(tasks)
    if not tops:
        return Markup("")
    width = _place(tops, 0.0, 0)
    boxes, lines, lowest = list[Markup](), list[Markup](), 0.0
    waiting = list(tops)
    while waiting:
        node = waiting.pop()
        lowest = max(lowest, node.y + _HEIGHT)
        boxes.append(_box(node, up))
        for child in node.below:
            lines.append(_line(node, child))
            waiting.append(child)
    return Markup(
        '<svg class="graph" role="group" aria-label="{} tasks of the workflow"'
        ' width="{}" height="{}" viewBox="0 0 {} {}">'
        "{}{}</svg>"
    ).format(
        len(tasks),
        int(width),
        int(lowest),
        int(width),
        int(lowest),
        Markup("").join(lines),
        Markup("").join(boxes),
    )


def arrange(tasks: Sequence[TaskRow]) -> list[Node]:
    """Return the boxes at the top, with the others below them."""
    known = {task.id: task for task in tasks}
    below = defaultdict[str, list[TaskRow]](list)
    tops = []
    for task in tasks:
        parent = known.get(task.parent)
        if parent is None or parent.id == task.id or _is_above(task, parent, known):
            tops.append(task)
        else:
            below[parent.id].append(task)
    return _fold(tops, below)


def _is_above(task: TaskRow, parent: TaskRow, known: dict[str, TaskRow]) -> bool:
    """Whether following the parents comes back to the task: forged messages may say so."""
    seen = {task.id}
    step: TaskRow | None = parent
    while step is not None:
        if step.id in seen:
            return True
        seen.add(step.id)
        step = known.get(step.parent) if step.parent else None
    return False


def _fold(tasks: Sequence[TaskRow], below: dict[str, list[TaskRow]]) -> list[Node]:
    alike = defaultdict[str, list[TaskRow]](list)
    for task in tasks:
        alike[task.name].append(task)
    nodes = []
    for name, same in alike.items():
        if len(same) <= MOST_ALIKE:
            nodes += [
                Node(
                    task.id, name, task.state, 1, int(task.state in ENDED), below=_fold(below[task.id], below)
                )
                for task in same
            ]
            continue
        states = {task.state for task in same}
        worst = next(
            (state for state in ("FAILURE", "STARTED", "RETRY", "RECEIVED", "PENDING") if state in states),
            "SUCCESS",
        )
        children = [child for task in same for child in below[task.id]]
        done = sum(task.state in ENDED for task in same)
        nodes.append(Node(same[0].id, name, worst, len(same), done, below=_fold(children, below)))
    return nodes


def _place(nodes: Sequence[Node], left: float, level: int) -> float:
    """Place boxes side by side, each over the middle of what is below it; return where the next may begin."""
    for node in nodes:
        right = _place(node.below, left, level + 1)
        width = max(right - left, _WIDTH + _GAP_X)
        node.x, node.y = left + (width - _GAP_X - _WIDTH) / 2, level * (_HEIGHT + _GAP_Y)
        left += width
    return left


def _box(node: Node, up: str) -> Markup:
    name = node.name.rpartition(".")[2] or node.id[:8]
    text = f"{name[:20]}" if node.count == 1 else f"{node.done} of {node.count} {name[:12]}"
    return Markup(
        '<a href="{}tasks/{}"><g class="state-{}"><title>{} {}</title>'
        '<rect x="{:.0f}" y="{:.0f}" width="{}" height="{}" rx="6"/><text x="{:.0f}" y="{:.0f}">{} {}</text></g></a>'
    ).format(
        up, node.id, node.state.lower(), node.name, node.state, node.x, node.y, _WIDTH, _HEIGHT,
        node.x + 10, node.y + _HEIGHT / 2 + 5, shape(node.state), text,
    )  # fmt: skip


def _line(above: Node, below: Node) -> Markup:
    x1, y1 = above.x + _WIDTH / 2, above.y + _HEIGHT
    x2, y2 = below.x + _WIDTH / 2, below.y
    middle = (y1 + y2) / 2
    return Markup('<path d="M{:.0f} {:.0f} C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} {:.0f}"/>').format(
        x1, y1, x1, middle, x2, middle, x2, y2
    )
