"""What a message or a result brings along acts on no terminal, and begins no line that looks like one of ours."""

import asyncio
import io
import json
import re
import time
from collections.abc import Sequence

import pytest

from celeriac import Celeriac
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.failure import Failure
from celeriac.wire.result import ResultRecord
from tests.cli.project import Project
from tests.cli.terminal import Terminal, on_a_terminal, start_on_a_terminal

FORGED = "2026-01-01 00:00:00.000 INFO    bank.pay[1] succeeded"
HOSTILE = f"\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e\x7f\x00\x0b\u2028\r\n{FORGED}\nerror: forged"
QUEUE = "q" + HOSTILE.replace("\0", "")
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[\d*[AK]")
"""Colours, the cursor's showing and hiding, its way up and the cleaning of a line: what bars and styles are made of."""
ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def check(written: str, *, lines_of_its_own: bool = False) -> str:
    """Nothing in it acts on a terminal, and no line is forged; returns it without our own styles."""
    assert "\x1b]" not in written
    assert "\x1b[2J" not in written
    plain = OURS.sub("", written.replace("\r\n", "\n")).replace("\r", "")
    assert not ACTING.findall(plain)
    if not lines_of_its_own:
        assert not [line for line in plain.split("\n") if line.startswith((FORGED[:10], "error: forged"))]
    return plain


async def fill(url: str) -> None:
    """Put hostile text wherever a command shows something."""
    async with Celeriac("hostile", url, url) as app:
        broker, backend = app.connections().broker, app.connections().backend

        def envelope(id: str, body: bytes, **headers: object) -> Envelope:
            told = {"id": id, "task": f"task{HOSTILE}", "lang": "py", **headers}
            return Envelope(
                body=body, content_type="application/json", content_encoding=f"utf-8{HOSTILE}", headers=told
            )

        body = json.dumps([[HOSTILE, "\ud800"], {HOSTILE: HOSTILE}, {}]).encode()
        raw = f"no json {HOSTILE}".encode()
        for one in (
            envelope("dead", raw, more=HOSTILE),
            envelope(f"i{HOSTILE}", body),
            envelope("later", body),
        ):
            await broker.publish(one, Route(QUEUE, queue=QUEUE))
        async with broker.subscribe([QUEUE]) as subscription:
            taken = []
            while len(taken) < 3:
                taken += await subscription.take(3 - len(taken))
            await taken[0].receipt.bury(f"reason{HOSTILE}")
            await taken[1].receipt.requeue()
            await taken[2].receipt.park(time.time() + 1000)
        failure = Failure(f"Error{HOSTILE}", [HOSTILE, "\ud800"], f"module{HOSTILE}")
        for record in (
            ResultRecord(
                task_id="failed",
                status="FAILURE",
                result=failure,
                traceback=f"trace {HOSTILE}",
                worker=HOSTILE,
                children=[[[HOSTILE, None], None]],
            ),
            ResultRecord(task_id="done", status="SUCCESS", result=[HOSTILE, {HOSTILE: "\ud800"}]),
            ResultRecord(task_id="odd", status=f"STATE{HOSTILE}", result=HOSTILE),
            ResultRecord(task_id="runs", status="PROGRESS", result={"current": 1, "message": HOSTILE}),
        ):
            await backend.store(backend.encode(record))


COMMANDS: Sequence[tuple[list[str], int, str]] = [
    (["queues"], 0, "q\\x1b]0;PWNED"),
    (["queues", "--json"], 0, "q\\u001b]0;PWNED"),
    (["queues", "peek", QUEUE], 0, "\\x9b31m"),
    (["queues", "peek", QUEUE, "--json"], 0, "\\u009b31m"),
    (["queues", "peek", HOSTILE], 1, "\\u202e"),
    (["queues", "purge", QUEUE], 2, "\\u202e"),
    (["queues", "scheduled"], 0, "task\\x1b"),
    (["queues", "scheduled", "--json"], 0, "\\u202e"),
    (["queues", "scheduled", "--cancel", HOSTILE], 1, "\\u202e"),
    (["dead"], 0, "\\x1b"),
    (["dead", "list", "--json"], 0, "\\u009b31m"),
    (["dead", "show", "1"], 0, "no json \\x1b]0;PWNED"),
    (["dead", "show", HOSTILE], 1, "\\u202e"),
    (["dead", "delete", "1"], 2, "Delete 1 message"),
    (["result", "done"], 0, "\\u202e"),
    (["result", "done", "--json"], 0, "\\u009b31m"),
    (["result", "done", "--wait"], 0, "\\u202e"),
    (["result", "odd"], 4, "STATE\\x1b"),
    (["result", "runs"], 4, "\\u202e"),
    (["result", "runs", "--timeout", "0.2"], 4, "runs"),
    (["result", HOSTILE], 4, "PENDING"),
    (["revoke", HOSTILE], 0, "revoked"),
    (["call", HOSTILE, HOSTILE], 0, ""),
    (["call", f"task{HOSTILE}", "1", "--timeout", "0.1", "--task-id", HOSTILE], 4, "\\u202e"),
    (["doctor"], 0, "q\\x1b]0;PWNED"),
    (["doctor", "--json"], 0, "\\u009b31m"),
    (["failed"], 0, "failed"),
    (["top", "--once"], 0, "q\\x1b]0;PWNED"),
    (["migrate"], 2, "PostgreSQL"),
    (["doctor", "-A", HOSTILE], 1, "\\u202e"),
    (["worker", "-A", f"{HOSTILE}:x"], 2, "\\u202e"),
]


@pytest.fixture
def hostile(project: Project) -> Project:
    asyncio.run(fill(project.url))
    return project


def test_no_command_lets_a_field_act_on_the_terminal(hostile: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for arguments, code, shown in COMMANDS:
        places = ["-b", hostile.url, "--backend", hostile.url]
        ended, written = on_a_terminal(monkeypatch, *arguments, *places, columns=500)
        assert (arguments, ended) == (arguments, code), written
        assert shown in check(written), arguments


def test_a_traceback_keeps_its_lines_and_nothing_else(hostile: Project, monkeypatch: pytest.MonkeyPatch):
    places = ["-b", hostile.url, "--backend", hostile.url]
    for arguments in (["result", "failed"], ["result", "failed", "-t"], ["result", "failed", "--json"]):
        code, written = on_a_terminal(monkeypatch, *arguments, *places, columns=500)
        assert code == 1
        assert "31m" in check(written, lines_of_its_own=True)


def test_json_is_the_value_still(hostile: Project):
    told = hostile.run("result", "done", "--json", "-b", hostile.url, "--backend", hostile.url)
    assert json.loads(told.stdout)["result"] == [HOSTILE, {HOSTILE: "\ud800"}]


LOGGING = """
import logging


@app.task(name="shop.tell")
async def tell(text: str) -> None:
    logging.getLogger("shop").info("told %s", text)
    logging.getLogger("shop").info("two for one %s %s", text)
    if len(text) > 1:
        raise ValueError(text)
"""


PERIODIC = """
from celeriac import Celeriac, crontab

HOSTILE = {hostile!r}
app = Celeriac(f"app{{HOSTILE}}", {url!r})
app.schedule(f"entry{{HOSTILE}}", f"task{{HOSTILE}}", crontab(hour=0, minute=0))
"""


@pytest.mark.parametrize(("command", "last"), [(["beat"], "entry"), (["web", "--port", "0"], "http://")])
def test_no_process_says_at_its_start_what_acts(hostile: Project, command: list[str], last: str):
    hostile.write(PERIODIC.format(hostile=HOSTILE.replace("\0", ""), url=hostile.url))
    terminal = Terminal(500)
    process = start_on_a_terminal(terminal, [*command, "-A", hostile.module], hostile.env, hostile.directory)
    terminal.wait_for(last)
    process.terminate()
    process.wait(60)
    assert last in check(terminal.close())


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_log_lets_a_field_act_or_loses_a_record(project: Project, form: str):
    project.write((project.directory / f"{project.module}.py").read_text() + LOGGING)
    asyncio.run(send_hostile(project.url))
    terminal = Terminal()
    options = ["worker", "-A", project.module, "-b", project.url, "--backend", project.url]
    worker = start_on_a_terminal(
        terminal, [*options, "--log-format", form, "-Q", "celery"], project.env, project.directory
    )
    ended = project.run(
        "result", "last", "--wait", "--timeout", "30", "-b", project.url, "--backend", project.url
    )
    assert ended.exit_code == 1, ended.output
    worker.terminate()
    assert worker.wait(60) == 0
    plain = check(terminal.close())
    lines = plain.strip().split("\n")
    if form == "json":
        records = [json.loads(line) for line in lines]
        messages = [
            f"{record.get('task_name')}[{record.get('task_id')}] {record['message']}" for record in records
        ]
        assert any(HOSTILE in message for message in messages)
    else:
        messages = [line for line in lines if re.match(r"\d{4}-\d\d-\d\d ", line)]
        texts = [line for line in lines if line not in messages and not line.startswith("  ")]
        assert [text for text in texts if not text.startswith("celeriac")] == []
    for id in ("half", "last"):
        for what in ("told ", "two for one "):
            assert [text for text in messages if id in text and what in text], (id, what)
    assert [text for text in messages if "last" in text and "failed: ValueError(" in text]
    assert [text for text in messages if "was refused and dead-lettered" in text]


async def send_hostile(url: str) -> None:
    async with Celeriac("hostile", url, url) as app:
        broker = app.connections().broker

        def envelope(id: str, task: str, text: str) -> Envelope:
            body = json.dumps([[text], {}, {}]).encode()
            headers = {"id": id, "task": task, "lang": "py", "shadow": f"shadow{HOSTILE}"}
            return Envelope(
                body=body, content_type="application/json", content_encoding="utf-8", headers=headers
            )

        for one in (
            envelope("unknown", f"nosuch{HOSTILE}", HOSTILE),
            envelope(f"id{HOSTILE}", "shop.tell", HOSTILE),
            envelope("half", "shop.tell", "\ud800"),
            envelope("last", "shop.tell", HOSTILE),
        ):
            await broker.publish(one, Route("celery", queue="celery"))
