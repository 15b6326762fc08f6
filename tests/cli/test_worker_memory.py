"""The memory of a worker's process, whatever its tasks leave behind."""

from celeriac import Celeriac
from tests.cli.project import Project

TASKS = """
from pathlib import Path
from celeriac import Celeriac

app = Celeriac("shop")


@app.task(name="fails")
def fails() -> None:
    data = bytearray(10_000_000)
    raise ValueError(len(data))


@app.task(name="keeps_an_error")
def keeps_an_error() -> None:
    data = bytearray(10_000_000)
    try:
        raise ValueError(len(data))
    except ValueError as error:
        kept = error


@app.task(name="peak")
def peak() -> int:
    # Not `getrusage`, which begins with the memory of pytest: a peak is inherited through fork and exec.
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(peak.split()[1]) // 1024
"""


async def test_it_does_not_grow_by_what_failed_tasks_held_nor_by_what_tasks_leave_to_the_collector(
    project: Project,
):
    project.write(TASKS)
    with project.worker("-c", "1", "-l", "critical"):
        async with Celeriac("client", project.url) as app:
            for name in ("fails", "keeps_an_error"):
                await app.send_many([app.call(name) for _ in range(80)])
            assert await (await app.send_task("peak")).wait(100) < 500, "MiB"
