"""What every command has in common: help, where -A may stand, how errors look."""

import subprocess
import sys
from importlib.metadata import version

import pytest

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
    assert "--app MODULE[:ATTR]" in shown.output


def test_version(project: Project):
    assert project.run("--version").output == f"celeriac {version('celeriac')}\n"


def test_help_imports_no_driver():
    seen = (
        "import sys, celeriac.cli.main; print({'redis', 'sqlalchemy', 'celery', 'kombu'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"


def test_app_stands_before_or_after_the_command(project: Project):
    project.bury("shop.add")
    before = project.run("-A", project.module, "queues")
    after = project.run("queues", "-A", project.module)
    inner = project.run("queues", "list", "-A", project.module)
    assert before.exit_code == 0
    assert before.output == after.output == inner.output
    assert before.output.split() == ["queue", "waiting", "celery", "0"]


def test_what_stands_after_the_command_wins(project: Project):
    project.bury("shop.add")
    assert project.run("-b", "redis://127.0.0.1:1", "queues", "-b", project.url).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["workr"], "Did you mean 'worker'?"),
        (["purge"], "use celeriac queues purge QUEUE"),
        (["beat"], "celery beat can send to celeriac workers"),
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


def test_module_and_console_script_are_the_same(project: Project):
    process = project.start("--version")
    assert process.wait() == 0
    assert process.output == f"celeriac {version('celeriac')}"
