"""Sentry's own integration of Celery reports the same from celeriac's worker as from Celery's."""

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.celery_app import sentry_app
from tests.celery_app.conftest import ROOT, TIMEOUT
from tests.celery_connections import disconnect
from tests.lines import whole_lines
from tests.servers import LoggedProcess, RedisServer

pytestmark = pytest.mark.timeout(180)  # a worker, and its processes, start within the first test

WORKERS: Mapping[str, tuple[str, ...]] = {
    "celery": (
        "celery",
        "-A",
        "tests.celery_app.sentry_app",
        "worker",
        "-P",
        "prefork",
        "-l",
        "info",
        "-c",
        "1",
    ),
    "processes": ("celeriac", "worker", "-A", "tests.celery_app.sentry_app", "-P", "processes", "-c", "1"),
    "threads": ("celeriac", "worker", "-A", "tests.celery_app.sentry_app", "-P", "threads", "-c", "1"),
}


class Watched:
    """What a worker would have sent to Sentry.

    :param before: how many of the lines are of no concern.
    """

    def __init__(self, file: Path, before: int = 0) -> None:
        self._file = file
        self._before = before

    def anew(self) -> "Watched":
        """The same without what was sent so far: a test counts its own, also when it runs again."""
        return Watched(self._file, self._before + len(self._lines()))

    def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Everything, as soon as that holds."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            items = [json.loads(line) for line in self._lines()]
            if holds(items):
                return items
            assert time.monotonic() < deadline, items
            time.sleep(0.02)

    def _lines(self) -> list[str]:
        return whole_lines(self._file)[self._before :]


@pytest.fixture(scope="module", params=sorted(WORKERS))
def started(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    url, queue = redis_server.url(), f"watched-{os.getpid()}-{time.monotonic_ns()}"
    file = tmp_path_factory.mktemp("sentry") / "items"
    sentry_app.app.conf.update(broker_url=url, result_backend=url, task_default_queue=queue)
    variables = {
        "WATCHED_BROKER": url,
        "WATCHED_QUEUE": queue,
        "WATCHED_FILE": str(file),
        "C_FORCE_ROOT": "1",
    }
    worker = LoggedProcess(
        [sys.executable, "-m", *WORKERS[request.param]], env={**os.environ, **variables}, cwd=ROOT
    )
    worker.wait_for(" ready")
    yield Watched(file)
    worker.kill()
    disconnect(sentry_app.app)


@pytest.fixture
def watched(started: Watched) -> Watched:
    """The module's worker, with what it sends to Sentry from here on."""
    return started.anew()


def transactions(items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    name = f"tests.celery_app.sentry_app.{name}"
    return [one for one in items if one["kind"] == "transaction" and one["transaction"] == name]


def test_a_run_is_a_transaction_that_continues_the_senders_trace(watched: Watched):
    trace_id = uuid.uuid4().hex
    headers = {"sentry-trace": f"{trace_id}-{'b' * 16}-1"}
    sent = sentry_app.add.apply_async((1, 2), headers={**headers, "headers": headers})
    assert sent.get(timeout=TIMEOUT) == 3

    def mine(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in transactions(items, "add") if one["contexts"]["trace"]["trace_id"] == trace_id]

    (run,) = mine(watched.until(lambda items: bool(mine(items))))
    trace = run["contexts"]["trace"]
    assert (trace["op"], trace["status"], trace["parent_span_id"]) == ("queue.task.celery", "ok", "b" * 16)
    assert run["tags"]["celery_task_id"] == sent.id
    assert [span["op"] for span in run["spans"]] == ["queue.process"]


def test_a_failure_is_one_event_of_the_run(watched: Watched):
    sent = sentry_app.fail.delay("a secret")
    with pytest.raises(ValueError, match="as asked"):
        sent.get(timeout=TIMEOUT)
    items = watched.until(lambda items: bool(transactions(items, "fail")))
    (run,) = transactions(items, "fail")
    (event,) = [one for one in items if one["kind"] == "event"]
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["exception"]["values"][-1]["mechanism"] == {"type": "celery", "handled": False}
    assert event["contexts"]["trace"]["trace_id"] == run["contexts"]["trace"]["trace_id"]
    assert run["contexts"]["trace"]["status"] == "internal_error"
    assert event["tags"]["celery_task_id"] == sent.id


def test_a_retry_and_what_a_task_sends_are_in_its_trace(watched: Watched):
    child = sentry_app.again.delay().get(timeout=TIMEOUT)

    def sent_on(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in transactions(items, "add") if one["tags"]["celery_task_id"] == child]

    items = watched.until(lambda items: bool(sent_on(items)) and len(transactions(items, "again")) == 2)
    first, second = transactions(items, "again")
    (last,) = sent_on(items)
    traces = {run["contexts"]["trace"]["trace_id"] for run in (first, second, last)}
    assert len(traces) == 1
    assert first["contexts"]["trace"]["status"] == "aborted"
    submitted = [span["span_id"] for span in second["spans"] if span["op"] == "queue.submit.celery"]
    assert last["contexts"]["trace"]["parent_span_id"] in submitted
