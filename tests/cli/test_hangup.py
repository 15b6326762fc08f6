"""SIGHUP has a worker start again, as Celery's does, and SIGUSR1 shows where it is."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.project import TASKS, Project

pytestmark = pytest.mark.timeout(180)

NAP = """

@app.task(name="shop.nap")
def nap(seconds: float) -> int:
    print("naps", flush=True)
    time.sleep(seconds)
    return 7
"""


@pytest.fixture(autouse=True)
def naps(project: Project) -> None:
    """The module has a task that sleeps where it cannot be cancelled."""
    project.write(TASKS + NAP)


def call(project: Project, *arguments: str) -> str:
    ended = project.run("call", "-b", project.url, "--backend", project.url, *arguments)
    assert ended.exit_code == 0, ended.output
    return ended.stdout.strip()


def ending(project: Project, task_id: str) -> tuple[str, Any]:
    shown = project.run("result", "-b", project.url, "--backend", project.url, task_id, "--json")
    result = json.loads(shown.stdout)
    return result["status"], result["result"]


@pytest.mark.parametrize("options", [("-P", "processes", "-c", "1"), ("--processes", "2", "-c", "1")])
def test_a_worker_starts_again(project: Project, options: tuple[str, ...]) -> None:
    within = project.directory / "within"
    within.mkdir()
    (within / f"{project.module}.py").write_text(TASKS + NAP)
    worker = project.start(
        *("--workdir", "within", "worker", "-A", project.module, "-b", project.url),
        *("--backend", project.url, "--pidfile", "own.pid", *options),
    )
    workers = 2 if "--processes" in options else 1
    worker.wait_for("never said", " ready", others_before=workers - 1)
    task_id = call(project, "shop.nap", "1")
    worker.wait_for("naps")
    worker.send_signal(signal.SIGHUP)
    worker.wait_for("never said", " ready", others_before=2 * workers - 1)
    assert ending(project, task_id) == ("SUCCESS", 7)
    assert call(project, "shop.add", "2", "3", "--wait", "--timeout", "30") == "5"
    assert int((within / "own.pid").read_text()) == worker.pid
    assert worker.stop() == 0
    assert "starting again, after SIGHUP" in worker.output


def test_one_workerof_several_starts_again(project: Project) -> None:
    worker = project.start("worker", "-A", project.module, "-b", project.url, "--processes", "2", "-c", "1")
    worker.wait_for("never said", " ready", others_before=1)
    started = worker.wait_for("is process")
    os.kill(int(started.rpartition(" ")[2]), signal.SIGHUP)
    worker.wait_for("never said", " ready", others_before=2)
    assert worker.stop() == 0
    assert "starting it again" not in worker.output


@contextmanager
def started(
    project: Project, command: Sequence[str], stdin: int, *, session: bool
) -> Iterator[tuple[Any, Path]]:
    """A worker with this standard input, and the file that it writes to; killed at the end if it still runs."""
    log = project.directory / "log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=session,
            env={**os.environ, **project.env},
            cwd=project.directory,
        )
    try:
        yield worker, log
    finally:
        worker.kill()
        worker.wait()


def test_a_terminal_that_goes_stops_its_worker(project: Project) -> None:
    """All of the terminal's processes get the signal: the child goes on, and its task ends."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "celeriac", "worker", "-A", project.module, "-P", "processes", "-c", "1"]
    with started(project, command, theirs, session=True) as (worker, log):
        os.close(theirs)
        task_id = call(project, "shop.nap", "2")
        while "naps" not in log.read_text():
            assert worker.poll() is None, log.read_text()
            time.sleep(0.05)
        os.killpg(worker.pid, signal.SIGHUP)
        assert worker.wait(60) == 0, log.read_text()
    os.close(ours)
    assert log.read_text().count(" ready") == 1
    assert ending(project, task_id) == ("SUCCESS", 7)


def test_what_nohup_started_outlives_a_hangup(project: Project) -> None:
    command = ["nohup", sys.executable, "-m", "celeriac", "worker", "-A", project.module]
    with started(project, command, subprocess.DEVNULL, session=False) as (worker, log):
        assert call(project, "shop.add", "2", "3", "--wait", "--timeout", "60") == "5"
        worker.send_signal(signal.SIGHUP)
        assert call(project, "shop.add", "2", "4", "--wait", "--timeout", "60") == "6"
        worker.terminate()
        assert worker.wait(60) == 0, log.read_text()
    assert "starting again" not in log.read_text()


def test_a_signal_shows_where_a_workeris(project: Project) -> None:
    with project.worker() as worker:
        call(project, "shop.nap", "1")
        worker.wait_for("naps")
        worker.send_signal(signal.SIGUSR1)
        worker.wait_for("in nap")
        assert worker.stop() == 0


def test_a_command_works_in_a_directory_that_was_deleted(project: Project) -> None:
    gone = project.directory / "gone"
    gone.mkdir()
    script = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); import sys; sys.argv[1:] = ['--version']; "
    script += "from celeriac.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("celeriac ")
