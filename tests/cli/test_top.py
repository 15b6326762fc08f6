"""celeriac top: its screen under Textual's own pilot, and what it prints without one."""

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import DataTable, Footer, Tree

from celeriac import Celeriac, Context
from celeriac.cli.top_app import TopApp, Workflow
from celeriac.cli.top_tables import parents_first
from celeriac.monitor.monitor import Monitor
from celeriac.monitor.rows import TaskRow
from tests.cli.project import Project
from tests.cli.screen import WAIT, Shop


@asynccontextmanager
async def shop(tmp_path: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Shop]:
    app = Celeriac("top", "memory://", send_events=True)
    seen = list[int]()

    @app.task(name="shop.pay")
    async def pay(number: int) -> int:
        seen.append(number)
        if len(seen) == 1:
            raise ValueError("[red]no[/red] money\x1b[2J")
        return number

    @app.task(name="shop.sleep")
    async def sleep(ctx: Context) -> None:
        await asyncio.sleep(3600)

    async with app, app.worker(grace=0.1), Monitor(app, tmp_path / "history.db") as monitor:
        top = TopApp(monitor)
        async with top.run_test(size=size) as pilot:
            made = Shop(app, top, pilot)
            await made.until(lambda: "workers 1" in made.text("numbers"))
            yield made


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_tasks_queues_workers_and_errors(tmp_path: Path, size: tuple[int, int]):
    async with shop(tmp_path, size) as made:
        await made.app.send_task("shop.sleep")
        await made.app.send_task("shop.pay", [1])
        await made.until(lambda: len(made.rows("Tasks")) == 2 and len(made.rows("Errors")) == 1)
        running, failed = made.rows("Tasks")
        assert running[:2] == ["STARTED", "shop.sleep"]
        assert failed[0] == "FAILURE"
        # Text of tasks is neither markup, nor does it act on the terminal.
        assert any(r"[red]no[/red] money\x1b" in cell or r"money\\x1b" in cell for cell in failed)
        await made.until(lambda: bool(made.rows("Workers")) and made.rows("Workers")[0][1] == "alive")
        assert made.rows("Errors")[0][1:3] == ["shop.pay", "ValueError"]
        for key, tab in (("2", "Queues"), ("3", "Workers"), ("4", "Errors"), ("1", "Tasks")):
            await made.press(key)
            await made.until(lambda tab=tab: made.top.tab == tab)  # type: ignore[misc]
        assert "\x1b[2J" not in made.top.export_screenshot()


async def test_what_stands_in_place_of_tasks_fits_and_widens_no_column_for_good(tmp_path: Path):
    async with shop(tmp_path) as made:
        await made.until(lambda: len(made.rows("Tasks")) == 1)
        table = made.top.screen_stack[0].query_one("#table-Tasks", DataTable)
        state, sentence = table.ordered_columns[:2]
        await made.until(lambda: sentence.content_width > 30)
        assert state.get_render_width(table) + sentence.get_render_width(table) <= 80
        await made.app.send_task("shop.sleep")
        await made.until(lambda: made.rows("Tasks")[0][0] == "STARTED")
        await made.until(lambda: sentence.content_width == len("shop.sleep"))


async def test_all_numbers_and_keys_are_seen_in_80_columns(tmp_path: Path):
    async with shop(tmp_path) as made:
        screen = made.top.screen
        lines = made.text("numbers").split("\n")
        assert max(map(len, lines)) <= 80
        assert lines[-1].endswith("dead 0")
        await made.until(lambda: screen.query_one("#numbers").size.height == len(lines))
        footer = screen.query_one(Footer)
        await made.until(lambda: len(footer.children) >= 8)
        assert max(key.virtual_region.right for key in footer.children) <= 80


async def test_a_failed_task_runs_again_after_a_question(tmp_path: Path):
    async with shop(tmp_path) as made:
        await made.app.send_task("shop.pay", [1])
        await made.choose("Tasks", "FAILURE")
        await made.answer("r", "n")
        await made.until(lambda: made.text("said") == "nothing was done")
        await made.answer("r", "y")
        await made.until(lambda: "sent again as" in made.text("said"))
        await made.until(lambda: [row[0] for row in made.rows("Tasks")] == ["SUCCESS", "FAILURE"])


async def test_all_failed_tasks_of_an_error_run_again(tmp_path: Path):
    async with shop(tmp_path) as made:
        await made.app.send_task("shop.pay", [1])
        await made.press("4")
        await made.choose("Errors", "ValueError")
        await made.answer("r", "y")
        await made.until(lambda: made.text("said") == "1 task sent again")


async def test_a_running_task_is_terminated(tmp_path: Path):
    async with shop(tmp_path) as made:
        result = await made.app.send_task("shop.sleep")
        await made.choose("Tasks", "STARTED")
        await made.answer("K", "y")
        await made.until(lambda: made.text("said") == f"{result.id} terminated")
        await made.until(lambda: made.rows("Tasks")[0][0] == "REVOKED")


async def test_a_queue_is_paused_and_resumed(tmp_path: Path):
    async with shop(tmp_path) as made:
        await made.press("p")
        await made.until(lambda: "choose one in the tab Queues" in made.text("said"))
        await made.press("2")
        await made.choose("Queues", "celery")
        await made.answer("p", "y")
        await made.until(lambda: made.rows("Queues")[0][3] == "paused")
        await made.until(lambda: "1 worker took from it" in made.text("said"))
        await made.answer("p", "y")
        await made.until(lambda: made.rows("Queues")[0][3] == "")


async def test_filter_sort_and_workflow(tmp_path: Path):
    async with shop(tmp_path) as made:
        await made.app.send_task("shop.pay", [1])
        await made.app.send_task("shop.pay", [2])
        await made.until(lambda: len(made.rows("Tasks")) == 2)
        await made.press("slash", *"ValueError", "enter")
        await made.until(lambda: [row[0] for row in made.rows("Tasks")] == ["FAILURE"])
        assert made.text("said") == "tasks with 'ValueError'"
        await made.press("escape")
        await made.until(lambda: len(made.rows("Tasks")) == 2)
        await made.press("s")
        await made.until(lambda: made.text("said") == "tasks by runtime")
        await made.press("f5")
        await made.until(lambda: isinstance(made.top.screen, Workflow))
        tree = made.top.screen.query_one("#tree", Tree)
        assert "shop.pay" in str(tree.root.children[0].label)
        await made.press("escape")
        await made.until(lambda: not isinstance(made.top.screen, Workflow))


def test_in_a_workflow_each_task_comes_after_the_one_that_sent_it():
    tasks = [TaskRow(id, parent=parent) for id, parent in [("d", "c"), ("c", "b"), ("b", "a"), ("a", "a")]]
    assert [task.id for task in parents_first(tasks)] == ["a", "b", "c", "d"]
    circle = [TaskRow("a", parent="b"), TaskRow("b", parent="a")]
    assert [task.id for task in parents_first(circle)] == ["a", "b"]


async def test_it_quits(tmp_path: Path):
    async with shop(tmp_path) as made:
        await made.pilot.resize_terminal(200, 60)
        await made.press("q")
        assert made.top.return_code == 0


@pytest.mark.parametrize("leave", [pytest.param(b"q", id="quit"), pytest.param(b"", id="terminal closed")])
def test_in_a_real_terminal(project: Project, leave: bytes):
    project.bury("shop.add")
    screen, device = os.openpty()
    termios.tcsetwinsize(device, (24, 100))
    command = [sys.executable, "-m", "celeriac", "top", "-b", project.url]
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1", "COLUMNS": "100", "LINES": "24"}
    top = subprocess.Popen(
        command, stdin=device, stdout=device, stderr=device, env=environment, start_new_session=True
    )
    os.close(device)
    seen = b""
    while b"dead 1" not in seen or b"Workers" not in seen:
        assert select.select([screen], [], [], WAIT)[0], seen
        seen += os.read(screen, 65536)
    if leave:
        os.write(screen, leave)
        with contextlib.suppress(OSError):  # nobody holds the other end any more
            while part := os.read(screen, 65536):
                seen += part
    os.close(screen)
    assert top.wait(WAIT) == 0
    assert b"\x1b[31m" not in seen


def test_one_look(project: Project):
    project.bury("shop.add")
    looked = project.run("top", "--once", "--json", "-b", project.url)
    assert looked.exit_code == 0, looked.output
    found = json.loads(looked.stdout)
    assert (found["dead"], found["waiting"], found["tasks"]) == (1, 0, [])
    assert [queue["name"] for queue in found["queues"]] == ["celery"]
    tables = project.run("top", "--once", "-b", project.url).stdout
    assert "dead 1" in tables
    assert "Waiting" in tables
    assert project.run("top", "--json", "-b", project.url).exit_code == 2


def test_one_look_with_a_history_in_postgresql(project: Project, postgres_url: str):
    project.bury("shop.add")
    looked = project.run("top", "--once", "--json", "-b", postgres_url, "--history", postgres_url)
    assert looked.exit_code == 0, looked.output
    assert json.loads(looked.stdout)["tasks"] == []


def test_the_command_line_does_not_import_textual(project: Project):
    project.run("top", "--once", "-b", project.url)
    code = "import sys, celeriac.cli.top; sys.exit('textual' in sys.modules)"
    process = asyncio.run(run(sys.executable, "-c", code))
    assert process == 0


async def run(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    return await process.wait()
