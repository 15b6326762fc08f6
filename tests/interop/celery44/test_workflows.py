"""Workflows that Celery 4.4's client sends, and that its workers have a part in; those that it cannot end are named."""

import asyncio
from random import Random
from typing import Any

import pytest

from celeriac import GroupResult, Result
from tests.canvas.plans import value
from tests.interop.celeriac_client import CeleriacClient, CeleriacSent
from tests.interop.celery44.client import OldCeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.clients import Build, Kit
from tests.interop.conftest import Serving
from tests.interop.test_workflows import test_the_errback_of_a_chord_is_called_once_when_its_header_fails
from tests.interop.workflows import FAILING, WORKFLOWS, from_plan, random_plan

__all__ = ["test_the_errback_of_a_chord_is_called_once_when_its_header_fails"]

HOW = ["celery-celeriac", "celery-mixed", "celeriac-celery", "celeriac-mixed"]
"""Who sends, and whose workers run it."""

FLAT = {"group-at-the-end-in-header"}
"""Celery 4 has a chord count such a group's members one by one; tested apart."""

UNREPLACED = {"replaced-in-chain", "replaced-by-chain-in-chain", "replaced-by-group-in-header"}
"""``replace`` of Celery 4.4 fails before a further step of a chain, and with a group in a header."""

UNENDED = {"header-then-chain", "chain-in-header", "chord-in-header", "group-in-chain"}
"""Celery 4 stores no failure for the later steps of a chain; its own client looks at the steps before."""

BY_THE_LAST = {"header-then-chain", "chord-in-header"}
"""Whoever counts a chord's last part ends the chord: these end, or do not, as celeriac or Celery 4 does."""

WRITTEN = {"replaced-by-chain-in-chain"}
"""Made with a dictionary of a workflow, which exists in the client's own process alone."""

BEYOND = {
    "celery-celeriac": FLAT | WRITTEN,
    "celery-mixed": FLAT | WRITTEN | {"replaced-in-chain"},
    "celeriac-celery": UNREPLACED | UNENDED,
    "celeriac-mixed": {"replaced-in-chain"},
}
"""What does not end, or not with this value, by what Celery 4.4 does of it."""


def within(names: dict[str, tuple[Build, object]]) -> list[tuple[str, str]]:
    """Each of the workflows, with everybody who can send and run it."""
    return [(how, name) for how in HOW for name in names if name not in BEYOND[how]]


@pytest.fixture
def how(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "celery-mixed")


@pytest.fixture
def sender(request: pytest.FixtureRequest, how: str) -> CeleriacClient | OldCeleryClient:
    """Who sends."""
    client: CeleriacClient | OldCeleryClient = request.getfixturevalue(f"{how.partition('-')[0]}_client")
    return client


@pytest.fixture
def queues(how: str, celery_worker: CeleryWorker, queue: str) -> list[str]:
    """Where the tasks of a workflow go, one after the other."""
    return {
        "celeriac": [queue],
        "celery": [celery_worker.queue],
        "mixed": [queue, celery_worker.queue, celery_worker.queue, queue, celery_worker.queue],
    }[how.partition("-")[2]]


@pytest.mark.parametrize(("how", "name"), within(WORKFLOWS), indirect=["how"])
async def test_the_value_is_the_same_whoever_runs_what(
    name: str,
    sender: CeleriacClient | OldCeleryClient,
    queues: list[str],
    queue: str,
    celeriac_serving: Serving,
) -> None:
    build, value = WORKFLOWS[name]
    async with celeriac_serving(queue):
        sent = await sender.send_workflow(build, queues)
        assert await sent.value() == value


@pytest.mark.parametrize(("how", "name"), within(FAILING), indirect=["how"])
async def test_a_failure_reaches_the_end(
    name: str,
    how: str,
    sender: CeleriacClient | OldCeleryClient,
    queues: list[str],
    queue: str,
    celery_worker: CeleryWorker,
    celeriac_serving: Serving,
) -> None:
    build, says = FAILING[name]
    late = how == "celeriac-mixed" and name in BY_THE_LAST
    sent = await sender.send_workflow(build, queues) if late else None
    if isinstance(sent, CeleriacSent):
        # Celery's part is counted when its worker says so; so the failure, which celeriac's worker counts, is the last.
        _, counted = first_header(sent.result)
        await asyncio.to_thread(celery_worker.process.wait_for, f"[{counted.id}] succeeded")
    async with celeriac_serving(queue):
        sent = sent or await sender.send_workflow(build, queues)
        with pytest.raises(Exception, match=says):
            await sent.value()


def first_header(result: Result[Any] | GroupResult[Any]) -> list[Result[Any]]:
    """The results of those members of a chord that run first."""
    while not isinstance(result, GroupResult) or result.results[0].parent is not None:
        result = result.results[0] if isinstance(result, GroupResult) else result.parent
    return result.results


@pytest.mark.parametrize(
    ("how", "first"),
    [("celery-celeriac", True), ("celery-celeriac", False), ("celery-mixed", True)],
    indirect=["how"],
)
async def test_a_group_at_the_end_of_a_header_member_is_counted_as_celery_4_does(
    first: bool, sender: OldCeleryClient, queues: list[str], queue: str, celeriac_serving: Serving
) -> None:
    """Its members are parts of their own, in no certain order, whether the client or a worker sends the chord."""

    def build(kit: Kit) -> Any:
        grouped = kit.chain(kit.si("add", 1, 1), kit.group([kit.s("add", 1), kit.s("add", 2)]))
        chord = kit.chord([grouped, kit.si("add", 9, 9)], kit.s("same"))
        return chord if first else kit.chain(kit.s("none"), chord)

    async with celeriac_serving(queue):
        sent = await sender.send_workflow(build, queues)
        assert sorted(await sent.value()) == [3, 4, 18]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", HOW, indirect=True)
async def test_a_random_workflow_gives_what_its_plan_says(
    seed: int,
    sender: CeleriacClient | OldCeleryClient,
    queues: list[str],
    queue: str,
    celeriac_serving: Serving,
) -> None:
    """None of these plans has a group at the end of a header's member."""
    plan = random_plan(Random(seed))
    async with celeriac_serving(queue):
        sent = await sender.send_workflow(from_plan(plan), queues)
        assert await sent.value() == value(plan)
