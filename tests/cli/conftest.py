"""A fresh project for a test, and one with a running worker that all tests share."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.project import TASKS, VARIABLES, Project
from tests.servers import LoggedProcess


@pytest.fixture(autouse=True)
def no_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in this machine's environment says where to connect."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def make_project(directory: Path) -> Project:
    project = Project(directory, f"shop_{uuid.uuid4().hex}")
    project.write(TASKS)
    return project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of this test's own; the test runs in its directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, LoggedProcess]]:
    """A project with a worker."""
    project = make_project(tmp_path_factory.mktemp("shop"))
    with project.worker("-l", "debug") as worker:
        yield project, worker


@pytest.fixture
def shop(served: tuple[Project, LoggedProcess], monkeypatch: pytest.MonkeyPatch) -> Project:
    """The shared project, whose tasks are run; the test runs in its directory."""
    monkeypatch.chdir(served[0].directory)
    monkeypatch.syspath_prepend(served[0].directory)
    return served[0]
