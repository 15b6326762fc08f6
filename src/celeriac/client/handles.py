"""Handles on the results of a workflow that was sent."""

from __future__ import annotations

from typing import Any

from celeriac.canvas.trail import Trail
from celeriac.client.result import GroupResult, Result
from celeriac.client.result_store import ResultStore


def handle_of(left: Trail, results: ResultStore) -> Result[Any] | GroupResult[Any]:
    """Return the handle on the result that gives a workflow's value; its parents are those of the steps before."""
    parent: Result[Any] | GroupResult[Any] | None = None
    for step in left.from_the_first():
        if step.members is None:
            parent = _step_result(step, parent, results)
        else:
            members = [handle_of(member, results) for member in step.members]
            parent = GroupResult(step.id, members, results, parent=parent)
    assert parent is not None
    return parent


def _step_result(
    step: Trail, parent: Result[Any] | GroupResult[Any] | None, results: ResultStore
) -> Result[Any]:
    node = step.node
    if node is None:
        return Result(step.id, results, parent=parent)
    return Result(
        step.id,
        results,
        task=node.task,
        convert=node.convert,
        ignored=bool(node.options.get("ignore_result")),
        parent=parent,
    )
