"""What the log of celeriac worker holds: its own lines, those of the user's loggers, and whose they are."""

import json
import logging
import re

import pytest

from celeriac import Celeriac
from tests.cli.project import TASKS, Project

OWN_LOGGERS = """
import logging

log = logging.getLogger("my.module")


@app.task(name="shop.told")
async def told() -> None:
    log.info("from a coroutine")
    log.warning("with %s", "care")


@app.task(name="shop.told_in_thread")
def told_in_thread() -> None:
    log.info("from a function")
    log.debug("not for everybody")
"""

SILENCING = """
import logging.config
logging.config.dictConfig({"version": 1, "loggers": {"shop": {"level": "INFO"}}})
"""

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "


def call(project: Project, name: str) -> str:
    """Send a task to the worker and wait for its end; its id."""
    sent = project.run("call", "-b", project.url, name)
    assert sent.exit_code == 0, sent.output
    task_id = sent.stdout.strip()
    project.run("result", "-b", project.url, "--backend", project.url, task_id, "--timeout", "30")
    return task_id


def test_the_users_loggers_speak_with_time_level_and_task(project: Project):
    project.write(TASKS + OWN_LOGGERS)
    with project.worker() as worker:
        told, in_thread = call(project, "shop.told"), call(project, "shop.told_in_thread")
        assert worker.stop() == 0
    for pattern in (
        rf"INFO    shop\.told\[{told}\] from a coroutine",
        rf"WARNING shop\.told\[{told}\] with care",
        rf"INFO    shop\.told_in_thread\[{in_thread}\] from a function",
    ):
        assert len(re.findall(f"^{LINE}{pattern}$", worker.output, re.MULTILINE)) == 1, worker.output
    assert "not for everybody" not in worker.output


def test_the_users_loggers_in_json(project: Project):
    project.write(TASKS + OWN_LOGGERS)
    with project.worker("--log-format", "json") as worker:
        told = call(project, "shop.told")
        assert worker.stop() == 0
    [line] = [one for one in map(json.loads, worker.lines) if one["message"] == "with care"]
    assert (line["logger"], line["level"], line["task_id"], line["task_name"]) == (
        "my.module",
        "WARNING",
        told,
        "shop.told",
    )


def test_dict_config_silences_neither_a_worker_nor_its_child_processes(project: Project):
    plain = TASKS.replace("async def boom", "def boom") + (
        '\n@app.task(name="shop.inside")\ndef inside(ctx: Context) -> None:\n    ctx.logger.info("inside")\n'
        '    logging.getLogger("late").info("told as well")\n'
    )
    project.write(SILENCING + plain)
    with project.worker("-P", "processes", "-c", "1") as worker:
        failed, inside = call(project, "shop.boom"), call(project, "shop.inside")
        assert worker.stop() == 0
    assert re.search(rf"ERROR   shop\.boom\[{failed}\] failed: ValueError", worker.output)
    for text in ("inside", "told as well"):
        assert re.search(rf"INFO    shop\.inside\[{inside}\] {text}", worker.output), worker.output


@pytest.mark.parametrize("root", ["{}", '{"root": {"level": "WARNING", "handlers": []}}'])
def test_a_task_that_sets_up_logging_silences_no_worker(project: Project, root: str):
    silencing = (
        "\nimport logging.config\n"
        '@app.task(name="shop.set_up")\n'
        "def set_up() -> None:\n"
        f'    logging.config.dictConfig({{"version": 1, **{root}}})\n'
        '@app.task(name="shop.after")\n'
        "def after() -> None:\n"
        '    raise ValueError("seen")\n'
    )
    project.write(TASKS + silencing)
    with project.worker() as worker:
        set_up, failed = call(project, "shop.set_up"), call(project, "shop.after")
        assert worker.stop() == 0
    assert worker.output.count(f"[{set_up}] succeeded") == 1, worker.output
    assert worker.output.count(f"[{failed}] failed: ValueError('seen')") == 1, worker.output


def test_handlers_of_the_users_root_logger_are_left_alone(project: Project):
    report = (
        '\n@app.task(name="shop.logging")\n'
        "def report():\n"
        "    root = logging.getLogger()\n"
        "    return [len(root.handlers), root.level]\n"
    )
    to_file = "import logging\nlogging.basicConfig(filename='own.log', level='ERROR')\n"
    project.write(to_file + TASKS + report)
    with project.worker() as worker:
        told = project.run(
            "call", "-b", project.url, "--backend", project.url, "shop.logging", "--timeout", "20"
        )
        failed = call(project, "shop.boom")
        assert worker.stop() == 0
    assert json.loads(told.stdout) == [1, logging.ERROR]
    assert f"shop.boom[{failed}] failed" in worker.output
    assert f"shop.boom[{failed}] failed" in (project.directory / "own.log").read_text()


def test_a_logger_with_a_terminal_handler_of_its_own_gives_no_double_lines(project: Project):
    own = "\nlog.addHandler(logging.StreamHandler())\n"
    project.write(TASKS + OWN_LOGGERS + own)
    with project.worker() as worker:
        call(project, "shop.told")
        assert worker.stop() == 0
    assert [line for line in worker.lines if "with care" in line] == ["with care"]


async def test_a_worker_inside_a_program_touches_no_logging(unique: str):
    def state() -> list[object]:
        loggers = [logging.getLogger(), logging.getLogger("celeriac")]
        return [(list(logger.handlers), logger.level, logger.disabled) for logger in loggers]

    before = state()
    app = Celeriac(unique, "memory://")
    async with app, app.worker():
        assert state() == before
    assert state() == before


def test_a_log_file(project: Project):
    with project.worker("--logfile", "%n.log", "-n", "first@%h", "-P", "processes", "-c", "1") as worker:
        task_id = call(project, "shop.boom")
        assert worker.stop() == 0
    written = (project.directory / "first.log").read_text()
    assert re.search(rf"^{LINE}ERROR   shop\.boom\[{task_id}\] failed", written, re.MULTILINE)
    assert task_id not in worker.output


def test_a_log_file_that_cannot_be(project: Project):
    ended = project.run("worker", "-A", project.module, "-f", "nowhere/worker.log")
    assert ended.exit_code == 2
    assert ended.stderr == (
        f"error: --logfile {project.directory}/nowhere/worker.log cannot be written: No such file or directory\n"
    )
