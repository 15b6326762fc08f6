"""Tables on terminals of 80, 100 and 120 columns: columns are folded, and nothing is left out."""

import asyncio
import re

import pytest

from celeriac import Celeriac
from celeriac.cli.demo_screen import Kind, screen_for
from celeriac.client.outbox import Call
from tests.cli.project import Project
from tests.cli.terminal import on_a_terminal, written_to_a_terminal
from tests.cli.test_dead import letters

WIDTHS = pytest.mark.parametrize("columns", [80, 100, 120])
STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def columns_of(written: str, columns: int) -> list[str]:
    """What stands in each column of a table, with its folds undone; no line is wider than the terminal."""
    head, rule, *lines = [
        line for line in STYLES.sub("", written).replace("\r", "").split("\n") if line.strip()
    ]
    assert set(rule.strip()) == {"─"}
    assert max(map(len, (head, rule, *lines))) <= columns
    starts = [found.start() for found in re.finditer(r"\S+(?: \S+)*", head)]
    ends = [*(start - 1 for start in starts[1:]), columns]
    return [
        "".join(line[start:end].strip() for line in (head, *lines))
        for start, end in zip(starts, ends, strict=True)
    ]


@WIDTHS
def test_dead_letters(project: Project, monkeypatch: pytest.MonkeyPatch, columns: int):
    reason = "TaskNotFound: the worker has no task of this name; import its module there"
    project.bury("shop.orders.send_invoice", reason=reason)
    [letter] = letters(project)
    code, written = on_a_terminal(monkeypatch, "dead", "-b", project.url, columns=columns)
    assert code == 0
    id, died_at, queue, task, task_id, told = columns_of(written, columns)
    assert (id, queue, task) == ("id1", "queuecelery", "taskshop.orders.send_invoice")
    assert task_id == f"task id{letter['task id']}"
    assert died_at.replace(" ", "") == f"diedat{letter['died at']}".replace(" ", "")
    assert told.replace(" ", "") == f"reason{reason}".replace(" ", "")


@WIDTHS
def test_queues_and_what_waits_in_them(project: Project, monkeypatch: pytest.MonkeyPatch, columns: int):
    queue = "long" * 30

    async def send() -> str:
        async with Celeriac("sender", project.url) as app:
            due = await app.send_task("shop.orders.send_invoice", countdown=9000, queue=queue)
            assert due.id
            return (await app.send_task("shop.orders.send_invoice", ["x" * 50], queue=queue)).id

    task_id = asyncio.run(send())
    code, written = on_a_terminal(monkeypatch, "queues", "-b", project.url, columns=columns)
    assert code == 0
    assert f"queue{queue}" in columns_of(written, columns)[0]
    code, written = on_a_terminal(monkeypatch, "queues", "peek", queue, "-b", project.url, columns=columns)
    assert code == 0
    id, task, _, arguments = columns_of(written, columns)
    assert (id, task) == (f"id{task_id}", "taskshop.orders.send_invoice")
    assert arguments == f"arguments('{'x' * 50}')"
    code, written = on_a_terminal(monkeypatch, "queues", "scheduled", "-b", project.url, columns=columns)
    assert code == 0
    assert columns_of(written, columns)[3] == f"queue{queue}"


@WIDTHS
def test_demo(monkeypatch: pytest.MonkeyPatch, columns: int):
    call = Call("demo.fetch", ("a shop with quite a long name",), None)
    kind = Kind("reports progress", "async def download, 50 ms each", [call], succeeded=300, failed=1)
    kind.example = "fetch('a shop with quite a long name') -> answered at attempt 3"

    def show() -> None:
        screen_for("").show_table([kind])

    told = columns_of(written_to_a_terminal(monkeypatch, show, columns), columns)
    assert [text.replace(" ", "") for text in told] == [
        "kindreportsprogress",
        "whatasyncdefdownload,50mseach",
        "succeeded300",
        "failed1",
        f"oneofthem{kind.example}".replace(" ", ""),
    ]
