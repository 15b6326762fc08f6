"""A module of tasks in a directory of its own."""

import os
from pathlib import Path

import pytest

from tests.cli.project import TASKS, Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A module of tasks on a file of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made = Project(tmp_path, f"shop_{os.urandom(8).hex()}")
    made.write(TASKS)
    return made
