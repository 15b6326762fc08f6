"""Whatever follows a message, the worker is told what it cannot do with it, and nothing breaks."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies

from celeriac import Celeriac, Context, chain, chord, group, mermaid
from celeriac.canvas.advance import (
    after_failure,
    after_parts,
    after_success,
    body_lost,
    casualties,
    obstacle,
    part_of,
)
from celeriac.canvas.nodes import Signature
from celeriac.errors import ConfigError, EncodeError, TaskNotFound
from celeriac.wire.content import Codecs
from celeriac.wire.task import TaskMessage, encode

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


app = Celeriac("mistakes", broker="memory://")
one = Signature("one")


@app.task
async def add(x: int, y: int) -> int:
    return x + y


NOT_A_PART = "no part of a workflow: give signatures"


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: group(["task.name"]), f"'task.name' is {NOT_A_PART}"),
        (lambda: group("task.name"), f"'task.name' is {NOT_A_PART}"),
        (lambda: group(None), f"None is {NOT_A_PART}"),
        (lambda: group(one.to_dict()), "from_dict"),
        (lambda: chain(one, add), f"add> is {NOT_A_PART}"),
        (lambda: chord([one], len), f"len> is {NOT_A_PART}"),
        (lambda: one | add, f"add> is {NOT_A_PART}"),
        (lambda: add | one, f"add> is {NOT_A_PART}"),
        (lambda: group(one) | len, f"len> is {NOT_A_PART}"),
        (lambda: one.link(add), f"add> is {NOT_A_PART}"),
        (lambda: one.link({}), "no signature"),
        (lambda: mermaid(add), f"add> is {NOT_A_PART}"),
        (lambda: Context(TaskMessage(id="id", task="t")).replace(add), f"add> is {NOT_A_PART}"),
        (lambda: one.set(countdwn=3), "did you mean countdown"),
        (lambda: one.set(task_id=5), "task_id=5: Expected `str"),
        (lambda: one.set(priority=10), "from 0"),
        (lambda: one.stamp(chain="x"), "an option has that name"),
        (lambda: one.stamp(task="x"), "or a field of a task"),
        (lambda: chain(one, one).stamp(id="x"), "or a field of a task"),
        (one.delay, "made by no app"),
        (lambda: chain().delay(), "no steps"),
        (lambda: add.map(5), r"add\.map: 5 cannot be iterated over"),
        (lambda: add.starmap([1, 2]), r"add\.starmap: 1 is no list of arguments"),
        (lambda: add.chunks([(1, 2)], 0), r"add: chunks of size 0: give"),
    ],
)
def test_mistakes_are_named(mistake: Callable[[], Any], said: str):
    with pytest.raises(ConfigError, match=said):
        mistake()


def test_an_argument_that_cannot_travel_is_named_with_its_task():
    with pytest.raises(EncodeError, match=r"task t: args\[0\]: <class 'object'>"):
        encode(TaskMessage(id="id", task="t", args=[object()]), Codecs())


def test_a_task_that_nobody_has_is_named_with_the_way_out():
    assert str(TaskNotFound("shop.refund")).startswith(
        "shop.refund: the worker has no task of this name; import"
    )
