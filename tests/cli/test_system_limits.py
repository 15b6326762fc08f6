"""celeriac worker where the system allows few threads, or few open files."""

from celeriac import Celeriac
from tests.cli.project import Project

TASKS = """
import resource
import threading
import time
from pathlib import Path

from celeriac import Celeriac

app = Celeriac("shop")


@app.task(name="nap")
def nap() -> str:
    time.sleep(0.05)
    return threading.current_thread().name


# As at a limit on threads, which root is not held to: their stacks do not fit into the address space.
PAGES = int(Path("/proc/self/statm").read_text().split()[0])
threading.stack_size(64 * 1024 * 1024)
LIMIT = PAGES * resource.getpagesize() + 600 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
"""


async def test_tasks_wait_for_the_threads_that_there_are(project: Project):
    project.write(TASKS)
    with project.worker("-c", "40") as worker:
        async with Celeriac("client", project.url) as app:
            results = await app.send_many([app.call("nap") for _ in range(40)])
            threads = [await result.wait(60) for result in results]
        assert 1 <= len(set(threads)) < 15
        worker.wait_for("could be started for plain functions")
        assert worker.output.count("could be started for plain functions") == 1


FEW_FILES = """
import os
import resource
import time

from celeriac import Celeriac

app = Celeriac("shop")


@app.task(name="nap")
def nap() -> int:
    time.sleep(0.05)
    return os.getpid()


resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))  # a child process takes one
"""


async def test_tasks_wait_for_the_child_processes_that_there_are(project: Project):
    project.write(FEW_FILES)
    with project.worker("-P", "processes", "-c", "60") as worker:
        async with Celeriac("client", project.url) as app:
            results = await app.send_many([app.call("nap") for _ in range(60)])
            processes = [await result.wait(60) for result in results]
        assert 1 <= len(set(processes)) < 48
        assert worker.output.count("no child process could be started") == 1
