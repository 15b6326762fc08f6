"""Every ending, in every delivery mode, on every broker: what the caller sees, how often the body ran, what is left."""

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext

import pytest

from tests.faults.matrix.cases import CASES, Case, Outcome
from tests.faults.matrix.page import PAGE, with_table
from tests.faults.matrix.stage import Stage
from tests.servers import PostgresServer, RedisServer

# Whichever test is the first waits for all cases to be played, each in a time of its own.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Outcome | BaseException]:
    """What came of the cases that this session is to test; they are played together."""
    chosen = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    cases = [params["case"] for params in chosen if isinstance(params.get("case"), Case)]
    on_rabbit = any(case.broker == "rabbitmq" for case in cases)
    rabbit = request.getfixturevalue("rabbit_server") if on_rabbit else None
    in_postgres = any(case.broker == "postgres" for case in cases)
    with (
        RedisServer() as shared,
        RedisServer(durable=True) as doomed,
        RedisServer(durable=True) as restarted,
        PostgresServer(settings=["max_connections=600"]) if in_postgres else nullcontext() as postgres,
    ):
        stage = Stage(cases, tmp_path_factory.mktemp("matrix"), shared, doomed, restarted, rabbit, postgres)
        return asyncio.run(stage.play())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_crash_matrix(case: Case, seen: Mapping[str, Outcome | BaseException]):
    outcome = seen[str(case)]
    if isinstance(outcome, BaseException):
        raise outcome
    assert outcome == case.expected


def test_the_page_shows_the_matrix():
    page = PAGE.read_text()
    assert page == with_table(page), "write it anew: python -m tests.faults.matrix.page"
