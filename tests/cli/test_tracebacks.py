"""What the log and the record show of a failure: the user's frames, and celeriac's error in one line."""

import json
import re
from itertools import takewhile

from tests.cli.project import Project

MODULE = """
import os
from celeriac import Celeriac

app = Celeriac("shop", broker="sqlite:///shop.db", backend="sqlite:///shop.db")


class Odd:
    pass


class Elsewhere:
    app = Celeriac("down", broker="redis://127.0.0.1:1", publish_timeout=1.0)


@Elsewhere.app.task(name="far")
async def far() -> None: ...


async def helper() -> None:
    await far.send()


@app.task(name="odd")
async def odd() -> object:
    return Odd()


@app.task(name="exits")
def exits() -> None:
    raise SystemExit(3)


@app.task(name="sends")
async def sends() -> None:
    await helper()


@app.task(name="blocks")
def blocks() -> None:
    far.delay()


@app.task(name="wraps")
async def wraps() -> None:
    try:
        await helper()
    except Exception as error:
        raise ValueError("mine") from error


@app.task(name="dies")
def dies() -> None:
    os._exit(1)
"""

FRAME = re.compile(r'File "([^"]+)", line \d+, in (\w+)')


def ended(project: Project, pool: str, *tasks: str) -> dict[str, tuple[list[str], list[str]]]:
    """For each task the lines of the record's traceback, and those of the log's; they run beside each other."""
    project.write(MODULE)
    ids = {task: project.run("call", "-b", project.url, task).stdout.strip() for task in tasks}
    places = ("-b", project.url, "--backend", project.url)
    with project.worker("-P", pool) as worker:
        told = {id: project.run("result", *places, id, "--timeout", "30", "--json") for id in ids.values()}
        for id in ids.values():
            worker.wait_for(f"[{id}] failed: ")
        assert worker.stop() == 0
    both = {}
    for task, id in ids.items():
        [start] = [number for number, line in enumerate(worker.lines) if f"[{id}] failed: " in line]
        logged = list(takewhile(lambda line: line.startswith("  "), worker.lines[start + 1 :]))
        written = json.loads(told[id].stdout)["traceback"].rstrip("\n").split("\n")
        both[task] = written, [line[2:] for line in logged]
    return both


def check(project: Project, lines: list[str], functions: list[str], last: str) -> None:
    frames = [found for line in lines if (found := FRAME.search(line))]
    file = str(project.directory / f"{project.module}.py")
    assert [(found[1], found[2]) for found in frames] == [(file, name) for name in functions]
    assert lines[-1].startswith(last)
    assert len([line for line in lines if line.startswith("celeriac.")]) == 1


def test_only_the_users_frames_are_shown(project: Project):
    shown = {
        "odd": ([], "celeriac.errors.EncodeError: result: "),
        "exits": (["exits"], "celeriac.errors.TaskAborted: the task raised SystemExit"),
        "sends": (["sends", "helper"], "celeriac.errors.BrokerUnavailable: "),
        "blocks": (["blocks"], "celeriac.errors.BrokerUnavailable: "),
        "wraps": (["wraps", "helper", "wraps"], "ValueError: mine"),
    }
    for task, tracebacks in ended(project, "threads", *shown).items():
        for lines in tracebacks:
            check(project, lines, *shown[task])


def test_a_lost_process_is_one_line(project: Project):
    [tracebacks] = ended(project, "processes", "dies").values()
    for lines in tracebacks:
        check(project, lines, [], "celeriac.errors.WorkerLost: the process that ran dies ended")
