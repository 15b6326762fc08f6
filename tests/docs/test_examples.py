"""Every example runs, and prints what it should."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.project import VARIABLES
from tests.docs.pages import ROOT
from tests.servers import LoggedProcess, RedisServer

EXAMPLES = ROOT / "examples"

PRINTED = {
    "hello.py": ["hello, world"],
    "asyncio_client.py": [
        "article 1: 19.0",
        "article 2: 38.0",
        "article 3: 57.0",
        "a hundred at once: 47025.0",
    ],
    "blocking_client.py": ["invoice-7.pdf SUCCESS", "invoice-8.pdf", "nine"],
    "progress_bar.py": ["exported 20 rows"],
    "task_object.py": [
        "confirmed 2 articles",
        "north: order 1: tea, cups (attempt 1)",
        "south: order 2: salt (attempt 1)",
    ],
    "workflow.py": [
        (
            "workflow.fetch('to be or not to be') | group(workflow.longest(), workflow.average())"
            " | workflow.report('words')"
        ),
        "words: longest 3.0, average 2.17",
        "4 of 4 tasks succeeded",
        "digraph workflow {",
        "    rankdir=LR;",
        "    node [shape=box, style=filled, fillcolor=white];",
        '    "new-0" [label="workflow.fetch(\'to be or not to be\')"];',
        '    "new-2" [label="workflow.longest()"];',
        '    "new-3" [label="workflow.average()"];',
        '    "new-4" [label="workflow.report(\'words\')"];',
        '    "new-0" -> "new-2";',
        '    "new-0" -> "new-3";',
        '    "new-2" -> "new-4";',
        '    "new-3" -> "new-4";',
        "}",
    ],
    "worker_in_program.py": [
        "page 0, attempt 1",
        "page 1, attempt 2",
        "page 2, attempt 1",
        "page 3, attempt 2",
        "received 6 messages, 2 retries",
    ],
}
BESIDE_CELERY = {"celery_producer.py", "celeriac_tasks.py", "celery_app.py"}


def own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def run(name: str, directory: Path, environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_tested_and_listed():
    names = {file.name for file in EXAMPLES.glob("*.py")}
    assert names == PRINTED.keys() | BESIDE_CELERY
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in names if f"({name})" not in listed] == []


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[str]]]]:
    """What each example prints; they run beside each other, in directories of their own."""
    with ThreadPoolExecutor(max_workers=2) as programs:
        yield {
            name: programs.submit(run, name, tmp_path_factory.mktemp("example"), own_environment())
            for name in PRINTED
        }


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_should(name: str, printed: dict[str, Future[list[str]]]):
    assert [line for line in printed[name].result() if line.strip()] == PRINTED[name]


@pytest.fixture(scope="module")
def redis_for_celery() -> Iterator[dict[str, str]]:
    with RedisServer() as redis:
        yield own_environment() | {"CELERY_BROKER_URL": redis.url(), "CELERY_RESULT_BACKEND": redis.url()}


def test_a_celery_app_on_a_celeriac_worker(tmp_path: Path, redis_for_celery: dict[str, str]):
    command = [sys.executable, "-m", "celeriac", "-A", "celery_app", "worker", "-c", "2"]
    worker = LoggedProcess(command, env=redis_for_celery, cwd=EXAMPLES)
    try:
        worker.wait_for("ready")
        printed = run("celery_app.py", tmp_path, redis_for_celery)
        for value in (10, 20, 30):
            worker.wait_for(f"a price: {value}")
    finally:
        worker.stop()
    assert printed == ["60 for 3 articles"]


def test_a_celery_program_calls_celeriac_tasks(tmp_path: Path, redis_for_celery: dict[str, str]):
    command = [sys.executable, "-m", "celeriac", "-A", "celeriac_tasks", "worker"]
    worker = LoggedProcess(command, env=redis_for_celery, cwd=EXAMPLES)
    try:
        worker.wait_for("ready")
        printed = run("celery_producer.py", tmp_path, redis_for_celery)
    finally:
        worker.stop()
    assert printed == ["sum: 5", "error: division by zero"]
