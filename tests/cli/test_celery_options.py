"""Every option of ``celery worker``: it works, or says that it has no effect, or is refused with what to use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from celery.bin.celery import celery as celery_command
from celery.bin.worker import worker as celery_worker

from celeriac.cli.celery_flags import PROCESS_FLAGS
from celeriac.cli.celery_options import CeleryOptions
from celeriac.cli.main import celeriac
from celeriac.cli.pidfile import pidfile
from celeriac.cli.worker import worker
from celeriac.errors import ConfigError
from tests.cli.project import Project
from tests.servers import LoggedProcess


def names_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def test_every_option_of_celerys_worker_is_known() -> None:
    theirs = names_of(celery_worker)
    assert len(theirs) > 40
    assert theirs - names_of(worker) - set(PROCESS_FLAGS) == set()


def test_every_option_before_celerys_commands_is_known() -> None:
    assert names_of(celery_command) - names_of(celeriac) == set()


def test_a_refused_option_is_none_that_works() -> None:
    assert set(PROCESS_FLAGS) & names_of(worker) == set()


TASKS = """
import os
import time
from celeriac import Celeriac

app = Celeriac("shop", default_queue="{queue}")


@app.task(name="shop.pid")
def pid() -> int:
    return os.getpid()


@app.task(name="shop.nap")
def nap(seconds: float) -> str:
    for _ in range(int(seconds * 50)):
        time.sleep(0.02)
    return "slept"
"""

MORE = """
from {module} import app


@app.task(name="shop.more")
def more() -> str:
    return "from another module"
"""


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, LoggedProcess, Path]]:
    """A worker as an init script starts Celery's, from another directory, with all that it may say."""
    directory = tmp_path_factory.mktemp("scripted")
    project = Project(directory, "scripted")
    project.write(TASKS.format(queue="main"))
    project.write(MORE.format(module="scripted"), "scripted_more")
    elsewhere = Project(tmp_path_factory.mktemp("elsewhere"), "scripted")
    for queue in ("main", "old"):
        assert call(project, "shop.pid", "-Q", queue).exit_code == 0
    command = ["--workdir", str(directory), "worker", "-A", "scripted", "-Q", "main,old,kept", "-X", "kept"]
    files = ["--pidfile", "%n.pid", "-f", "%n.log", "-n", "one@host"]
    limits = ["--time-limit", "300", "--soft-time-limit", "0.5", "--autoscale", "4,1", "-O", "fair"]
    process = elsewhere.start(*command, *files, *limits, "-I", "scripted_more", "--purge", "-l", "FATAL")
    try:
        process.wait_for(" ready")
        yield project, process, directory
    finally:
        if process.running:
            process.stop()
    assert not (directory / "one.pid").exists()


def call(project: Project, *arguments: str) -> click.testing.Result:  # type: ignore[name-defined]
    before = Path.cwd()
    os.chdir(project.directory)
    try:
        return project.run("-b", project.url, "call", *arguments)
    finally:
        os.chdir(before)


def test_a_worker_as_scripts_start_celerys(scripted: tuple[Project, LoggedProcess, Path]) -> None:
    project, process, directory = scripted
    file = str(directory / "one.pid")
    holder = int((directory / "one.pid").read_text())
    with pytest.raises(ConfigError, match=f"is that of process {holder}, which runs"), pidfile(file, "x@y"):
        pass
    arguments = ["--backend", project.url, "--wait", "--timeout", "30", "-Q", "main"]
    assert call(project, "shop.pid", *arguments).stdout.strip() == str(holder)
    assert "from another module" in call(project, "shop.more", *arguments).stdout
    late = call(project, "shop.nap", "20", *arguments)
    assert (late.exit_code, "SoftTimeLimitExceeded" in late.stderr) == (1, True)
    # What waited before the start was purged, so these are the only tasks that ran.
    [banner] = [line for line in process.lines if "queues" in line]
    assert ("main, old" in banner, "kept" in banner) == (True, False)
    assert (directory / "one.log").exists()


def test_queues_left_out() -> None:
    options = CeleryOptions(exclude=("b",))
    assert options.queues("a,b", ["c"]) == ["a"]
    assert options.queues(None, ["b", "c"]) == ["c"]
    with pytest.raises(ConfigError, match="-X b leaves no queue of b"):
        options.queues("b", ["c"])


@pytest.mark.parametrize(
    "options",
    [
        CeleryOptions(optimization="fair"),
        CeleryOptions(prefetch_multiplier=1),
        CeleryOptions(disable_prefetch=True),
    ],
)
def test_what_takes_only_what_can_start(options: CeleryOptions) -> None:
    assert options.settings() == {"prefetch": 0}
    assert options.handed_down()["-O"] == "fair"


@pytest.mark.parametrize(("multiplier", "backlog"), [(8, 8), (0, 200)])
def test_what_may_be_held_behind_long_tasks(multiplier: int, backlog: int) -> None:
    options = CeleryOptions(prefetch_multiplier=multiplier)
    assert options.settings() == {"backlog": backlog}
    assert options.handed_down()["--prefetch-multiplier"] == backlog


def test_the_file_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "worker.pid"
    for text in ("999999999\n", "", f"{os.getpid()}\n"):
        file.write_text(text)
        with pidfile(str(file), "w@h"):
            assert file.read_text() == f"{os.getpid()}\n"
        assert not file.exists()


def test_a_pidfile_that_cannot_be(tmp_path: Path) -> None:
    file = str(tmp_path / "no" / "x")
    with pytest.raises(ConfigError, match="cannot be written: No such file"), pidfile(file, "w@h"):
        pass


def test_variables_of_celerys_global_options(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELERY_CONFIG_MODULE", "NO_COLOR", "CELERY_SKIP_CHECKS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "before")
    ended = project.run("--config", "own_conf", "-C", "--skip-checks", "-b", project.url, "queues")
    assert f"{project.file}; is this the directory" in ended.stderr  # the options were taken
    assert os.environ["CELERY_CONFIG_MODULE"] == "own_conf"
    assert (os.environ["NO_COLOR"], os.environ["CELERY_SKIP_CHECKS"]) == ("1", "true")


def test_a_directory_that_is_not_there(project: Project) -> None:
    ended = project.run("--workdir", "nowhere", "queues")
    assert (ended.exit_code, "nowhere: No such file or directory" in ended.stderr) == (2, True)
