"""celeriac worker -P processes, as frameworks and service managers use it."""

import signal

import psutil

from celeriac import Celeriac
from tests.cli.project import Project

TASKS = """
import time
from celeriac import Celeriac

app = Celeriac("shop")


@app.task(name="nap")
def nap() -> str:
    print("naps", flush=True)
    time.sleep(1)
    return "slept"
"""

REGISTRY = "ready = []"

MODELS = """
from {registry} import ready

assert ready, "the registry is not ready yet"
"""

BOOT = """
import {registry}

{registry}.ready.append(True)

from {module} import app
"""


async def test_a_signal_to_all_its_processes_leaves_running_tasks_their_grace(project: Project):
    project.write(TASKS)
    with project.worker("-P", "processes", "-c", "1") as worker:
        async with Celeriac("client", project.url) as app:
            result = await app.send_task("nap")
            worker.wait_for("naps")
            parent = psutil.Process(worker.pid)
            for process in (*parent.children(recursive=True), parent):
                process.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=60) == 0
            assert await result.wait(60) == "slept"


async def test_a_child_imports_the_module_of_the_worker_before_that_of_the_task(project: Project):
    registry = project.write(REGISTRY, f"registry_of_{project.module}")
    project.write(MODELS.format(registry=registry) + TASKS)
    boot = project.write(BOOT.format(registry=registry, module=project.module), f"boot_{project.module}")
    process = project.start("worker", "-A", boot, "-P", "processes", "-c", "1")
    try:
        process.wait_for(" ready")
        async with Celeriac("client", project.url) as app:
            assert await (await app.send_task("nap")).wait(60) == "slept"
    finally:
        process.kill()


THREADS = """
import threading

threading.Thread(target=threading.Event().wait, daemon=True, name="of-a-library").start()
"""


async def test_where_the_apps_module_starts_threads_children_are_spawned(project: Project):
    project.write(THREADS + TASKS)
    with project.worker("-P", "processes", "-c", "1") as worker:
        async with Celeriac("client", project.url) as app:
            assert await (await app.send_task("nap")).wait(60) == "slept"
        worker.wait_for("start threads when they are imported (of-a-library)")


async def test_children_of_either_kind_end_with_a_worker_that_is_killed(project: Project):
    project.write(TASKS.replace("time.sleep(1)", "time.sleep(60)"))
    for method in ("forkserver", "spawn"):
        with project.worker("-P", "processes", "-c", "1", "--start-method", method) as worker:
            async with Celeriac("client", project.url) as app:
                await app.send_task("nap")
                worker.wait_for("naps")
                below = psutil.Process(worker.pid).children(recursive=True)
                worker.kill()
            _, alive = psutil.wait_procs(below, timeout=20)
            assert not alive
