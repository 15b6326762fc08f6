"""Any workflow gives the value that its parts say, in whatever order and however often its messages arrive."""

import json
from random import Random

from hypothesis import given, settings, strategies

from celeriac.canvas.celery_form import from_dict
from celeriac.canvas.freeze import freeze
from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature
from tests.canvas.plans import Fleet, Plan, build, plans, value

seeds = strategies.integers(0, 2**32)


@settings(deadline=None)
@given(plans, seeds)
def test_a_workflow_gives_the_value_of_its_plan(plan: Plan, seed: int):
    assert Fleet(Random(seed)).run(build(plan)) == value(plan)


@settings(deadline=None)
@given(plans, seeds)
def test_messages_that_arrive_twice_change_nothing(plan: Plan, seed: int):
    fleet = Fleet(Random(seed), repeats=2)
    assert fleet.run(build(plan)) == value(plan)
    assert len(fleet.bodies) == len(set(fleet.bodies))


@settings(deadline=None)
@given(plans, seeds)
def test_the_dictionary_form_is_the_same_workflow(plan: Plan, seed: int):
    read = from_dict(json.loads(json.dumps(build(plan).to_dict())))
    assert Fleet(Random(seed)).run(read) == value(plan)


@settings(deadline=None)
@given(plans)
def test_freezing_twice_changes_nothing(plan: Plan):
    numbers = iter(range(10**6))
    once = freeze(build(plan), lambda: str(next(numbers)))
    assert freeze(once, lambda: "new") == once
    assert freeze(from_dict(once.to_dict()), lambda: "new").to_dict() == once.to_dict()


@settings(deadline=None)
@given(plans)
def test_the_regular_form(plan: Plan):
    numbers = iter(range(10**6))
    check(freeze(build(plan), lambda: str(next(numbers))))


def check(node: Node) -> None:
    match node:
        case Chain(steps=steps):
            assert len(steps) > 1
            assert not any(isinstance(step, Chain) for step in steps)
            assert not any(isinstance(step, Group) for step in steps[:-1])
        case Group():
            assert node.id is not None
        case Chord(header=header, body=body):
            assert not isinstance(body, Chain)
            assert all(ends_in_a_task(member) for member in header.members)
        case Signature():
            assert node.id is not None
    for part in node.parts:
        check(part)


def ends_in_a_task(node: Node) -> bool:
    match node:
        case Chain(steps=(*_, last)):
            return ends_in_a_task(last)
        case Chord(body=body):
            return ends_in_a_task(body)
    return isinstance(node, Signature)
