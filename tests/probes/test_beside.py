"""The process that answers probes beside a worker: nothing that the worker does holds it up, and it ends with it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from celeriac.probes.address import Address
from celeriac.probes.answering import pages_of
from celeriac.probes.facts import Facts, FactsFile
from celeriac.probes.health import Health, Pulse
from celeriac.probes.pages import PageServer
from celeriac.probes.serving import Page
from celeriac_probe import fetch
from tests.cli.project import Project

WAIT = 60.0

ASKER = """
import sys, time
from celeriac_probe import fetch
time.sleep(0.3)
status, _ = fetch(sys.argv[1], "/livez", 10)
print(status, time.monotonic())
"""


@pytest.fixture
def facts() -> Iterator[FactsFile]:
    made = FactsFile.make()
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "probe")


@pytest.fixture
def server(facts: FactsFile, path: str) -> Iterator[PageServer]:
    facts.write(Health(Pulse()).facts())
    pages = {**pages_of(facts.read), "/other": lambda: Page(200, b"made in the worker")}
    server = PageServer(Address(path=path).listen(), pages, facts)
    server.start()
    yield server
    server.close()


@pytest.mark.usefixtures("server")
def test_a_probe_is_answered_while_the_interpreter_lock_is_held(path: str):
    asking = subprocess.Popen([sys.executable, "-c", ASKER, path], stdout=subprocess.PIPE, text=True)
    ctypes.PyDLL(None).usleep(2_000_000)  # as a function of an extension that does not let go of it
    released = time.monotonic()
    told, _ = asking.communicate(timeout=WAIT)
    status, answered = told.split()
    assert status == "200"
    assert float(answered) < released


@pytest.mark.usefixtures("server")
def test_what_the_worker_notes_is_what_the_process_answers(facts: FactsFile, path: str):
    health = Health(Pulse(), live_after=0.2)
    assert fetch(path, "/livez", WAIT) == (200, b"starting\n")
    assert fetch(path, "/startupz", WAIT) == (503, b"the worker does not hold its queues yet\n")
    health.on_change = lambda: facts.write(health.facts())
    health.note_ready()
    assert fetch(path, "/startupz", WAIT) == (200, b"started\n")
    health.pulse.last = time.monotonic()
    health.note_stopping()
    assert fetch(path, "/readyz", WAIT) == (503, b"stopping\n")
    assert fetch(path, "/livez", WAIT)[0] == 200
    health.pulse.last = time.monotonic() - 3
    health.on_change()
    status, text = fetch(path, "/livez", WAIT)
    assert (status, text[:26]) == (503, b"the event loop is stuck fo")


def test_a_process_that_has_ended_is_replaced_by_the_thread(
    server: PageServer, path: str, caplog: pytest.LogCaptureFixture
):
    assert server.beside is not None
    assert fetch(path, "/livez", WAIT)[0] == 200
    os.kill(server.beside, signal.SIGTERM)  # as systemd tells all processes of a service
    assert fetch(path, "/livez", WAIT)[0] == 200
    assert not caplog.text
    os.kill(server.beside, signal.SIGKILL)
    end = time.monotonic() + WAIT
    while server.beside is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert fetch(path, "/livez", WAIT)[0] == 200
    assert fetch(path, "/other", WAIT) == (200, b"made in the worker")
    assert "probes are answered by a thread, since no process can do so (it ended with -9)" in caplog.text


def test_it_ends_with_a_worker_that_is_killed(project: Project, path: str):
    worker = project.start("worker", "-A", project.module, "--probe-socket", path)
    worker.wait_for(" ready")
    assert fetch(path, "/livez", WAIT)[0] == 200
    [beside] = [
        child for child in psutil.Process(worker.pid).children() if "probes.answering" in str(child.cmdline())
    ]
    worker.kill()
    with pytest.raises(OSError, match=r"refused|reset|no HTTP"):
        fetch(path, "/livez", WAIT)
    beside.wait(WAIT)


def test_it_imports_nothing_but_the_standard_library_and_its_own():
    root = str(Path(sys.modules["celeriac"].__path__[0]).parent)
    program = f"import sys; sys.path.append({root!r}); import celeriac.probes.answering; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    own = {
        "celeriac",
        "celeriac.probes",
        *(f"celeriac.probes.{name}" for name in ("answering", "facts", "serving")),
    }
    assert {name for name in modules if name.startswith("celeriac")} == own
    assert {name.partition(".")[0] for name in modules - own} <= {*sys.stdlib_module_names, "__main__"}


def test_a_record_that_is_being_written_is_not_read(facts: FactsFile):
    assert facts.read() is None
    first = Facts(1, 10.0, 8.0, "not yet")
    facts.write(first._replace(complaint="x" * 5000, dead="é"))
    assert facts.read() == first._replace(complaint="x" * 1000, dead="é")
    facts.write(first)
    assert facts.read() == first
    os.pwrite(facts.descriptor, b"[2", 16)
    assert facts.read() == first
