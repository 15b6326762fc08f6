"""What doctor and a starting worker say of a Celery app that has what celeriac does not follow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner

from celeriac.cli.main import celeriac

APP = """
import click
from celery import Celery, bootsteps
from celery.worker.request import Request

app = Celery("odd", broker="memory://", set_as_current=False)
app.conf.update({settings})


class Probe(bootsteps.StartStopStep):
    requires = {{"celery.worker.components:Timer"}}


class OwnRequest(Request):
    pass


app.steps["worker"].add(Probe)
app.user_options["worker"].add(click.Option(["--tenant"]))


@app.task(name="odd.task", shared=False, Request=OwnRequest, rate_limit="10/m")
def task(): ...


@app.task(name="odd.signed", shared=False, serializer={serializer!r})
def signed(): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"odd_{uuid4().hex}"
    yield name
    sys.modules.pop(name, None)


def doctor(module: str, serializer: str = "json", **settings: object) -> tuple[int, str]:
    Path(f"{module}.py").write_text(APP.format(settings=settings, serializer=serializer))
    ended = CliRunner().invoke(celeriac, ["-A", module, "doctor"])
    return ended.exit_code, ended.stdout


def test_what_is_not_followed(module: str) -> None:
    code, said = doctor(module, worker_autoscaler="own:Autoscaler", worker_hijack_root_logger=False)
    assert code == 0
    assert "warn  app       worker_autoscaler: has no effect here: the pool has as many processes" in said
    assert f"warn  app       bootstep {module}.Probe: is not run when a worker starts: move it to" in said
    assert "warn  app       option --tenant: the app's own options of the worker" in said
    assert "warn  app       task odd.task: its Request is not used" in said
    assert "hijack" not in said
    assert "rate" not in said


def test_what_keeps_a_worker_from_starting(module: str) -> None:
    code, said = doctor(module, serializer="auth", worker_pool="gevent")
    assert code == 1
    assert "fail  app       worker_pool: there is no pool gevent here: use -P threads" in said
    assert "fail  app       task odd.signed: serializer 'auth' is not known" in said


def test_a_setting_is_not_said_again_of_each_task(module: str) -> None:
    _, said = doctor(module, task_serializer="own", task_compression="own")
    assert said.count("'own'") == 2
    assert "task_serializer: 'own': celeriac does not know it" in said
    assert "task_compression: 'own' is not known" in said


def test_tasks_that_are_not_there(module: str) -> None:
    code, said = doctor(module, include=["no_such_module_here"])
    assert code == 1
    assert "ModuleNotFoundError: No module named 'no_such_module_here'" in said


def test_tasks_that_cannot_be_imported(module: str, tmp_path: Path) -> None:
    broken = tmp_path / f"{module}_tasks.py"
    broken.write_text("x = 1\nimport nothing_here\n")
    code, said = doctor(module, include=[f"{module}_tasks"])
    assert code == 1
    assert f"importing the modules of its tasks failed at {broken}:2: ModuleNotFoundError" in said
