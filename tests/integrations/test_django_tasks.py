"""Django's own tasks, carried by an app of celeriac's and by a Celery app: by django-tasks, and by Django 6 itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.celery_app.conftest import START
from tests.newer_python import newer_python, said_of_django_6
from tests.servers import LoggedProcess, RedisServer

PROJECT = Path(__file__).parent / "django_post"
ROOT = Path(__file__).parents[2]
WITH_DJANGO_6 = ["-e", ".[redis,celery]", "celery[redis]", "django>=6,<6.1"]
OWN, CELERYS = "post.own:app", "post.celery.app"

pytestmark = pytest.mark.timeout(180)  # a worker, and its processes, start within the first test


class Post:
    """The project, in a queue of its own."""

    def __init__(self, server: RedisServer, notes: Path, python: str, package: str, app: str) -> None:
        self.queue = f"post-{uuid4()}"
        self.python = python
        self.notes = notes
        self.app = app
        self.variables = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "post.settings",
            "POST_APP": app,
            "POST_BROKER": server.url(),
            "POST_NOTES": str(notes),
            "POST_PACKAGE": package,
            "POST_QUEUE": self.queue,
            "C_FORCE_ROOT": "1",
        }

    @contextmanager
    def working(self, *command: str) -> Iterator[LoggedProcess]:
        """Run a worker within the block."""
        process = LoggedProcess([self.python, "-m", *command], env=self.variables, cwd=PROJECT)
        try:
            process.wait_for(" ready", timeout=START)
            yield process
        finally:
            process.stop()

    def run(self, *command: str) -> str:
        """Return what a program of the project prints."""
        ended = subprocess.run(
            [self.python, *command],
            check=False, cwd=PROJECT, env=self.variables, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


def holds(post: Post, server: RedisServer, worker: str) -> None:
    """Everything that a web process sees is as Django's documentation has it."""
    found: dict[str, Any] = json.loads(post.run("-m", "post.client"))
    assert found.pop("first") == ["READY", "SUCCESSFUL", 3, 1, [worker]]
    assert found.pop("arguments") == [[1], {"y": 2}]
    assert found.pop("awaited") == [["waited", 0.01]] * 2
    assert found.pop("looked") == [True, 1, "RUNNING", [3, [4]], [3, [4]]]
    assert found.pop("failed") == ["FAILED", [["LookupError", True]], True]
    assert found.pop("not_json") == ["TypeError"]
    assert found.pop("slow") == ["READY"] * 3
    done, failed = found.pop("ids")
    assert all(value is True for value in found.values()), found
    notes = [json.loads(line) for line in post.notes.read_text().splitlines()]
    for task_id, end in ((done, "SUCCESSFUL"), (failed, "FAILED")):
        said = [note for note in notes if note[1] == task_id]
        assert said == [["TasksBackend", task_id, status] for status in ("RUNNING", end)]
    with server.client() as client:
        waiting = {step: client.llen("slow" + step) for step in ("", "\x06\x163", "\x06\x169")}
        client.delete(*("slow" + step for step in waiting))
    assert waiting == {"": 1, "\x06\x163": 1, "\x06\x169": 1}  # the highest first, the lowest last


Start = Callable[..., Post]


@pytest.fixture
def project(redis_server: RedisServer, tmp_path: Path) -> Start:
    def make(app: str, python: str = sys.executable, package: str = "django_tasks") -> Post:
        return Post(redis_server, tmp_path / "notes", python, package, app)

    return make


@pytest.mark.parametrize("pool", ["threads", "processes"])
@pytest.mark.parametrize("app", [OWN, CELERYS])
def test_django_tasks_on_a_celeriac_worker(
    project: Start, redis_server: RedisServer, app: str, pool: str
) -> None:
    post = project(app)
    with post.working("celeriac", "-A", app, "worker", "-P", pool, "-c", "2", "-n", "post@host"):
        holds(post, redis_server, "post@host")


def test_django_tasks_on_a_celery_worker(project: Start, redis_server: RedisServer) -> None:
    """So that a fleet can move, in both directions."""
    post = project(CELERYS)
    options = ("-P", "threads", "-c", "2", "-n", "post@host", "-l", "info")
    with post.working("celery", "-A", "post.celery", "worker", *options):
        holds(post, redis_server, "post@host")


def test_tasks_in_memory_for_a_test_of_the_project(project: Start) -> None:
    found = json.loads(project(OWN).run("-m", "post.in_memory"))
    names = ["post.tasks.add", "post.tasks.wait", "post.tasks.look", "post.tasks.fail"]
    assert found == [["SUCCESSFUL"] * 3 + ["FAILED"], 3, names]


@pytest.fixture(scope="module")
def django_6(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a virtualenv with Django 6; the test is skipped, with the reason, where there can be none."""
    found = newer_python()
    if found is None:
        pytest.skip(said_of_django_6())
    place = tmp_path_factory.mktemp("django-6")
    pinned = place / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned.write_text("\n".join(line for line in lines if not line.startswith("django==")))
    subprocess.run([found, "-m", "venv", place / "venv"], check=True, timeout=120)
    python = str(place / "venv" / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(pinned)]
    ended = subprocess.run(
        [*command, *WITH_DJANGO_6], check=False, cwd=ROOT, capture_output=True, text=True, timeout=170
    )
    if ended.returncode:
        pytest.skip(f"Django 6 is not tested: it cannot be installed for {found}: {ended.stderr[-500:]}")
    return python


@pytest.mark.timeout(400)
def test_django_6_itself(project: Start, redis_server: RedisServer, django_6: str) -> None:
    for app, pool in ((OWN, "threads"), (CELERYS, "processes")):
        post = project(app, django_6, "django.tasks")
        with post.working("celeriac", "-A", app, "worker", "-P", pool, "-c", "2", "-n", "post@host"):
            holds(post, redis_server, "post@host")
        post.notes.unlink()
    assert post.run("-c", "import django; print(django.__version__)").startswith("6.")
