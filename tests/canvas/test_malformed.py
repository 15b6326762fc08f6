"""Whatever follows a message, the worker is told what it cannot do with it, and nothing breaks."""

from typing import Any

import pytest
from hypothesis import given, strategies

from celeriac.canvas.advance import (
    after_failure,
    after_parts,
    after_success,
    body_lost,
    casualties,
    obstacle,
    part_of,
)
from celeriac.canvas.nodes import Signature, group
from celeriac.errors import ConfigError
from celeriac.wire.task import TaskMessage

scraps = strategies.recursive(
    strategies.one_of(
        strategies.none(), strategies.booleans(), strategies.integers(-2, 3), strategies.text("ab")
    ),
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=2),
        strategies.dictionaries(
            strategies.sampled_from(
                ["task", "args", "kwargs", "options", "tasks", "header", "body", "chain"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def _signatures(inner: Any) -> Any:
    options = strategies.dictionaries(
        strategies.sampled_from(
            [
                *(
                    "task_id",
                    "group_id",
                    "group_index",
                    "chord",
                    "chain",
                    "link",
                    "link_error",
                    "queue",
                    "eta",
                ),
                *("expires", "countdown", "priority", "headers", "stamped_headers", "replaced_task_nesting"),
            ]
        ),
        strategies.one_of(inner, scraps),
        max_size=2,
    )
    kwargs = strategies.dictionaries(
        strategies.sampled_from(["tasks", "header", "body", "kwargs", "task", "it", "n"]),
        strategies.one_of(inner, strategies.lists(inner, max_size=3), scraps),
        max_size=3,
    )
    return strategies.fixed_dictionaries(
        {"task": strategies.sampled_from(["t", "celery.chain", ""]), "options": options, "kwargs": kwargs},
        optional={
            "subtask_type": strategies.sampled_from([None, "chain", "group", "chord", "chunks", "other"]),
            "args": strategies.lists(scraps, max_size=2),
            "immutable": strategies.booleans(),
        },
    )


signatures = strategies.one_of(
    scraps, strategies.recursive(_signatures(scraps), _signatures, max_leaves=4)
).filter(
    lambda signature: isinstance(signature, dict) and signature  # decoding lets nothing else through
)
lists = strategies.lists(signatures, max_size=2)


@given(lists, lists, lists, strategies.one_of(strategies.none(), signatures))
def test_what_is_no_obstacle_can_be_sent_on(callbacks: Any, errbacks: Any, chain: Any, chord: Any):
    message = TaskMessage(
        id="id", task="t", group="g", callbacks=callbacks, errbacks=errbacks, chain=chain, chord=chord
    )
    after_failure(message, lambda name: False)
    casualties(message)
    if obstacle(message) is None:
        after_success(message, 1)
        for part in part_of(message, "SUCCESS", 1):
            after_parts(part, [1])
            body_lost(part)


def test_too_deep_is_said():
    node = Signature("a").to_dict()
    for _ in range(2000):
        node = {**node, "task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [node]}}
    assert obstacle(TaskMessage(id="id", task="t", chain=[node])) is not None


def test_wrong_parts_and_options_are_named():
    with pytest.raises(ConfigError, match="no part of a workflow"):
        group(["task.name"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="did you mean countdown"):
        Signature("a").set(countdwn=3)
    with pytest.raises(ConfigError, match="made by no app"):
        Signature("a").delay()
