"""``celeriac top`` as a person sees it: on a terminal of 80 and of 100 columns, with a fleet that lives."""

import os
import sys

import pytest

from tests.cli.emulated_terminal import Terminal
from tests.cli.project import VARIABLES, Project

NUMBERS = ("workers 1", "dead 0")
KEYS = ("Quit", "Filter", "Sort", "Workflow", "Cancel", "Terminate", "Again", "Pause")


def top(project: Project, columns: int) -> Terminal:
    own = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "COLUMNS", "LINES")}
    command = [sys.executable, "-m", "celeriac", "top", "-b", project.url, "--backend", project.url]
    env = {**own, "TERM": "xterm-256color", "NO_COLOR": "1"}
    return Terminal(command, columns, 24, env=env, cwd=project.directory)


def call(project: Project, *arguments: str) -> None:
    sent = project.run("call", *arguments, "-b", project.url)
    assert sent.exit_code == 0, sent.output


def whole(text: str) -> bool:
    """Whether all numbers, tabs and keys are there."""
    lines = text.split("\n")
    numbers, footer = "\n".join(lines[:2]), lines[-1]
    return (
        all(number in numbers for number in NUMBERS)
        and all(key in footer for key in KEYS)
        and any(all(tab in line for tab in ("Tasks", "Queues", "Workers", "Errors")) for line in lines[:5])
    )


@pytest.mark.parametrize(("columns", "then"), [(100, 80), (80, 100)])
def test_a_fleet_is_seen_and_steered(project: Project, columns: int, then: int):
    with project.worker("-E"), top(project, columns) as screen:
        screen.until(whole)
        call(project, "shop.boom")
        call(project, "shop.sleep", "3600")
        seen = screen.until(lambda text: "FAILURE" in text and "STARTED" in text)
        # What runs stands first.
        assert seen.index("shop.sleep") < seen.index("shop.boom")

        screen.press("/")
        screen.until("part of a name")
        screen.press("boom\r")
        screen.until(lambda text: "tasks with 'boom'" in text and "shop.sleep" not in text)
        assert "shop.boom" in screen.text
        screen.press("r")
        screen.until("Run task")
        screen.press("n")
        screen.until("nothing was done")
        screen.press("r")
        screen.until("Run task")
        screen.press("y")
        screen.until("sent again as")
        screen.until(lambda text: text.count("FAILURE") == 2)
        screen.press("\x1b")
        screen.until(lambda text: "shop.sleep" in text)

        screen.resize(then, 24)
        screen.until(whole)
        screen.press("s")
        screen.until("tasks by runtime")
        screen.press(5 * "\x1b[A")  # up to the first line, which runs
        screen.press("K")
        screen.until("Terminate task")
        screen.press("y")
        screen.until("terminated")
        screen.until("REVOKED")

        screen.press("2")
        screen.until(lambda text: "Waiting" in text and "celery" in text)
        screen.press("3")
        screen.until("celeriac@")
        screen.press("4")
        screen.until("ValueError")
        screen.press("q")
        assert screen.ended() == 0
        assert screen.shows_cursor
