"""Workflows written once, for Celery's canvas and for celeriac's, and what each must give."""

from random import Random
from typing import Any

from tests.canvas.plans import Plan
from tests.interop.clients import Build, Kit


def random_plan(random: Random, room: int = 3) -> Plan:
    """A workflow as plain data, nested up to ``room`` deep.

    No group is directly in a group: Celery 5.7 splices those in backwards where they are a part of something else.
    """
    if room == 0 or random.random() < 0.3:
        return ("task", random.choice("abcdef"), random.random() < 0.2)
    kind = random.choice(["chain", "chain", "group", "chord"])
    parts = tuple(random_plan(random, room - 1) for _ in range(random.randint(2, 3)))
    if kind != "chain":
        parts = tuple(
            ("chain", (("task", "g", False), part)) if part[0] == "group" else part for part in parts
        )
    return (kind, parts, random_plan(random, room - 1)) if kind == "chord" else (kind, parts)


def from_plan(plan: Plan) -> Build:
    """How either kit builds the workflow of a plan."""

    def build(kit: Kit) -> Any:
        match plan:
            case ("task", label, immutable):
                return kit.si("work", label) if immutable else kit.s("work", label)
            case ("chain", steps):
                return kit.chain(*(from_plan(step)(kit) for step in steps))
            case ("group", members):
                return kit.group([from_plan(member)(kit) for member in members])
        _, members, body = plan
        return kit.chord([from_plan(member)(kit) for member in members], from_plan(body)(kit))

    return build


def written(workflow: Any) -> Any:
    """The dictionary form, of either kit's workflow."""
    return workflow if isinstance(workflow, dict) else workflow.to_dict()


WORKFLOWS: dict[str, tuple[Build, Any]] = {
    "chain": (lambda k: k.s("add", 1, 2) | k.s("add", 10) | k.s("add", 100), 113),
    "chain-immutable": (lambda k: k.s("add", 1, 2) | k.si("add", 5, 5) | k.s("add", 1), 11),
    "group": (lambda k: k.group([k.s("add", n, n) for n in range(4)]), [0, 2, 4, 6]),
    "group-of-chains": (
        lambda k: k.group(k.s("add", 1, 1) | k.s("add", 1), k.s("add", 2, 2) | k.s("add", 2)),
        [3, 6],
    ),
    "chord": (lambda k: k.chord([k.s("add", n, n) for n in range(4)], k.s("total")), 12),
    "chord-of-one": (lambda k: k.chord([k.s("add", 1, 1)], k.s("same")), [2]),
    "chord-body-chain": (
        lambda k: k.chord([k.s("add", 1, 1), k.s("add", 2, 2)], k.s("total") | k.s("add", 1) | k.s("add", 1)),
        8,
    ),
    "chain-in-header": (
        lambda k: k.chord([k.s("add", 1, 1) | k.s("add", 5), k.s("add", 2, 2)], k.s("same")),
        [7, 4],
    ),
    "chain-group": (
        lambda k: k.chain(k.s("add", 1, 1), k.group(k.s("add", 1), k.s("add", 2))),
        [3, 4],
    ),
    "chain-group-task": (
        lambda k: k.chain(
            k.s("add", 1, 1), k.group(k.s("add", 1), k.s("add", 2)), k.s("total"), k.s("add", 1)
        ),
        8,
    ),
    "chain-group-group-task": (
        lambda k: k.chain(
            k.s("add", 1, 1),
            k.group(k.s("add", 1), k.s("add", 2)),
            k.group(k.s("total"), k.s("same")),
            k.s("same"),
        ),
        [7, [3, 4]],
    ),
    "chord-in-header": (
        lambda k: k.chord(
            [k.chord([k.s("add", 1, 1), k.s("add", 2, 2)], k.s("total")), k.s("add", 3, 3)], k.s("same")
        ),
        [6, 6],
    ),
    "chord-body-group": (
        lambda k: k.chord([k.s("add", 1, 1), k.s("add", 2, 2)], k.group(k.s("total"), k.s("same"))),
        [6, [2, 4]],
    ),
    "chord-of-chord": (
        lambda k: k.chain(
            k.group(k.s("add", 1, 1), k.s("add", 2, 2)),
            k.s("total"),
            k.group(k.s("add", 1), k.s("add", 2)),
            k.s("total"),
        ),
        15,
    ),
    "group-of-one-in-chain": (lambda k: k.chain(k.s("add", 1, 1), k.group(k.s("add", 1)), k.s("add", 1)), 4),
    "ignored-members": (
        lambda k: k.chord([k.s("add", n, n, ignore_result=True) for n in range(3)], k.s("total")),
        6,
    ),
    "replaced-in-chain": (lambda k: k.chain(k.s("add", 1, 1), k.s("become", 5), k.s("add", 100)), 107),
    "replaced-in-header": (
        lambda k: k.chord([k.s("become", 1, 2), k.s("add", 1, 1)], k.s("same")),
        [3, 2],
    ),
    "replaced-by-group-in-header": (
        lambda k: k.chord([k.s("become_group", 1), k.s("add", 1, 1)], k.s("same")),
        [[2, 3], 2],
    ),
    "replaced-by-chain-in-chain": (
        lambda k: k.chain(
            k.s("same", 0),
            k.s("become_this", written(k.s("add", 1, 1) | k.s("add", 10))),
            k.s("add", 100),
            k.s("add", 1000),
        ),
        1112,
    ),
    "retried-in-header": (
        lambda k: k.chord([k.s("retry_then", 7), k.s("add", 1, 1)], k.s("same")),
        [7, 2],
    ),
    "group-at-the-end-in-header": (
        lambda k: k.chord(
            [k.chain(k.s("add", 1, 1), k.group(k.s("add", 1), k.s("add", 2))), k.s("add", 9, 9)], k.s("same")
        ),
        [[3, 4], 18],
    ),
}
"""Name to how it is built and its value."""

FAILING: dict[str, tuple[Build, str]] = {
    "header": (lambda k: k.chord([k.s("fail", "spoiled"), k.s("add", 1, 1)], k.s("total")), "spoiled"),
    "header-then-chain": (
        lambda k: k.chord([k.s("fail", "spoiled"), k.s("add", 1, 1)], k.s("total") | k.s("add", 1)),
        "spoiled",
    ),
    "chain-in-header": (
        lambda k: k.chord([k.s("fail", "spoiled") | k.s("add", 1), k.s("add", 1, 1)], k.s("total")),
        "spoiled",
    ),
    "chord-in-header": (
        lambda k: k.chord(
            [k.chord([k.s("fail", "spoiled"), k.s("add", 2, 2)], k.s("total")), k.s("add", 3, 3)], k.s("same")
        ),
        "spoiled",
    ),
    "group-in-chain": (
        lambda k: k.chain(k.s("fail", "spoiled"), k.group(k.s("add", 1), k.s("add", 2)), k.s("total")),
        "spoiled",
    ),
}
"""Name to how it is built and what the error of its end says."""
