"""What every command has in common: help, where -A may stand, how errors look."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from celeriac.cli.commands import Commands
from celeriac.cli.main import celeriac
from tests.cli.project import Project

COMMANDS = sorted(celeriac.commands)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_commands_and_exit_codes(project: Project, flag: str):
    shown = project.run(flag)
    assert shown.exit_code == 0
    for word in (*COMMANDS, "Exit codes", "130"):
        assert word in shown.output


@pytest.mark.parametrize(
    "command", [["worker"], ["queues", "purge"], ["dead", "retry"], *([name] for name in COMMANDS)]
)
def test_every_command_has_help(project: Project, command: list[str]):
    shown = project.run(*command, "-h")
    assert shown.exit_code == 0
    assert command == ["probe"] or "--app MODULE[:ATTR]" in shown.output


def test_version(project: Project):
    assert project.run("--version").output == f"celeriac {version('celeriac')}\n"


def test_the_list_of_commands_says_what_the_commands_say():
    commands = celeriac.commands
    assert isinstance(commands, Commands)
    own = {name: command.get_short_help_str(100) for name, command in sorted(commands.items())}
    assert commands.short_texts() == own


@pytest.mark.parametrize("arguments", [["--version"], ["-h"], ["nosuch"]])
def test_what_runs_no_command_imports_nothing_for_one(arguments: list[str]):
    seen = (
        "import sys, celeriac.cli.main as it\n"
        "try: it.main()\n"
        "finally: print(sorted({'asyncio', 'msgspec', 'rich', 'sqlite3', 'celeriac.client'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", seen, *arguments], capture_output=True, text=True, check=False
    )
    needed = "['msgspec']" if arguments == ["nosuch"] else "[]"
    assert ended.stdout.splitlines()[-1] == needed, ended.stderr


def test_status_imports_neither_workers_nor_libraries_that_it_has_no_use_for(tmp_path: Path):
    unused = {
        "yaml",
        "msgpack",
        "brotli",
        "zstandard",
        "rich",
        "opentelemetry",
        "celeriac.worker",
        "celeriac.beat",
        "celeriac.celery_app",
    }
    file = tmp_path / "shop.db"
    file.touch()
    assert imported_by_status(f"sqlite:///{file}", unused) == []
    of_apps = {"arguments", "canvas", "client.app", "client.publisher", "schedule", "settings", "wire.task"}
    of_queues = {"servers.redis.broker", "servers.redis.results", "contracts.broker", "contracts.server"}
    unused |= {f"celeriac.{name}" for name in of_apps | of_queues} | {"zoneinfo"}
    assert imported_by_status("redis://127.0.0.1:1/0", unused) == []


def imported_by_status(url: str, unused: set[str]) -> list[str]:
    seen = (
        "import sys, celeriac.cli.main as it\n"
        "try: it.main()\n"
        f"finally: print(sorted({unused!r} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", seen, "status", "-b", url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found: list[str] = ast.literal_eval(ended.stdout.splitlines()[-1])
    return found


def test_app_stands_before_or_after_the_command(project: Project):
    project.bury("shop.add")
    before = project.run("-A", project.module, "queues")
    after = project.run("queues", "-A", project.module)
    inner = project.run("queues", "list", "-A", project.module)
    assert before.exit_code == 0
    assert before.output == after.output == inner.output
    assert before.output.split() == ["queue", "waiting", "workers", "celery", "0", "0"]


def test_what_stands_after_the_command_wins(project: Project):
    project.bury("shop.add")
    assert project.run("-b", "redis://127.0.0.1:1", "queues", "-b", project.url).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["workr"], "Did you mean 'worker'?"),
        (["purge"], "use celeriac queues purge QUEUE"),
        (["queues"], "which broker? Name your app (-A module)"),
        (["queues", "-b", "sqlite:///nowhere.db"], "names no file that exists"),
        (["queues", "-b", "ftp://x"], "unknown scheme ftp://"),
        (["worker"], "name the app whose tasks to run"),
        (["worker", "-A", "x", "--loop", "fast"], "'fast' is not one of"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(project: Project, arguments: list[str], said: str):
    ended = project.run(*arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr


def test_dead_broker_is_one_line_and_exit_code_3(project: Project):
    ended = project.run("queues", "-b", "redis://user:secret@127.0.0.1:1")
    assert ended.exit_code == 3
    assert ended.stderr.count("\n") == 1
    assert "127.0.0.1:1" in ended.stderr
    assert "secret" not in ended.stderr


FOREIGN = {"CELERY_RESULT_BACKEND": "django-db", "CELERY_BROKER_URL": "sqs://"}


def test_variables_meant_for_others_stop_no_command_that_can_do_without(project: Project):
    project.env = FOREIGN
    for arguments in (["--version"], ["-h"], ["worker", "-h"]):
        process = project.start(*arguments)
        assert process.wait(timeout=60) == 0, process.output
    project.bury("shop.add")
    for arguments in (
        ["queues"],
        ["dead"],
        ["call", "shop.add", "1", "2"],
        ["queues", "purge", "celery", "-y"],
    ):
        ended = project.run(*arguments, "-b", project.url)
        assert (ended.exit_code, ended.stderr) == (0, ""), arguments
    assert project.run("doctor", "-b", project.url, "--backend", project.url).exit_code == 0


def test_a_variable_with_a_url_that_cannot_be_read_stops_only_who_needs_it(project: Project):
    project.env = {"CELERY_RESULT_BACKEND": "redis://:a#S3CRET@h", "CELERIAC_BROKER": "redis://h/0?bogus=1"}
    project.bury("shop.add")
    for arguments in (["queues"], ["dead"], ["call", "shop.add", "1", "2"]):
        ended = project.run(*arguments, "-b", project.url)
        assert (ended.exit_code, ended.stderr) == (0, ""), arguments
    for arguments, name in (
        (["queues"], "CELERIAC_BROKER"),
        (["result", "some-id", "-b", project.url], "CELERY_RESULT_BACKEND"),
    ):
        ended = project.run(*arguments)
        assert ended.exit_code == 2
        assert ended.stderr.startswith(f"error: {name} in the environment cannot be used: "), arguments
        assert "S3CRET" not in ended.stderr


def test_a_variable_that_cannot_be_used_is_named_by_who_needs_it(project: Project):
    project.env = FOREIGN
    project.bury("shop.add")
    for arguments, name in (
        (["queues"], "CELERY_BROKER_URL"),
        (["queues", "-A", project.module], "CELERY_BROKER_URL"),
        (["result", "some-id", "-b", project.url], "CELERY_RESULT_BACKEND"),
        (["worker", "-A", project.module, "-b", project.url], "CELERY_RESULT_BACKEND"),
    ):
        process = project.start(*arguments)
        assert process.wait(timeout=60) == 2, process.output
        assert process.lines[-1].startswith(f"error: {name} in the environment cannot be used: "), arguments
        assert "Traceback" not in process.output
    checked = project.run("doctor", "-b", project.url)
    assert checked.exit_code == 1
    assert "fail  backend   django-db (from CELERY_RESULT_BACKEND): CELERY_RESULT_BACKEND" in checked.stdout


def test_module_and_console_script_are_the_same(project: Project):
    process = project.start("--version")
    assert process.wait() == 0
    assert process.output == f"celeriac {version('celeriac')}"


def test_the_default_file_is_named_with_its_whole_path(project: Project):
    sent = project.run("call", "-A", project.module, "shop.add", "1", "2")
    assert (sent.exit_code, sent.stderr) == (0, f"sent to {project.file}\n")
    waited = project.run("call", "-A", project.module, "shop.add", "1", "2", "--timeout", "0.1")
    assert f"{project.file}" in waited.stderr
    with project.worker() as worker:
        assert f"broker   sqlite:///{project.file}" in worker.output
        assert f"backend  sqlite:///{project.file}" in worker.output
    elsewhere = project.directory / "elsewhere.db"
    ended = project.run("queues", "-b", "sqlite:///elsewhere.db")
    assert ended.exit_code == 2
    assert f"names no file that exists: {elsewhere}; " in ended.stderr
    assert f"sqlite:///{elsewhere}" in project.run("doctor", "-b", "sqlite:///elsewhere.db").stdout
