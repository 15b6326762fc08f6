"""What workers answer, and what stands in records of periodic tasks, acts on no terminal and ends no command."""

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Self

import pytest

from celeriac import Celeriac
from celeriac.beat.entry import Entry, write_entry
from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.schedule.interval import Interval
from celeriac.wire.content import Codecs
from celeriac.wire.control import read_request
from celeriac.wire.envelope import Envelope
from tests.cli.project import Project
from tests.cli.terminal import on_a_terminal
from tests.cli.test_control_characters import HOSTILE, check
from tests.hostile.test_schedules import records
from tests.hostile.values import VALUES

NODE = f"w@{HOSTILE}"
NAME = HOSTILE.replace("\0", "")
READABLE = [value for value in VALUES if '"decimal"' not in value]
"""Values that do not make the whole answer malformed."""

DEEP = "[" * 400 + "]" * 400
OKS = '{"ok": ' * 400 + '"deep"' + "}" * 400
TEXT = json.dumps(HOSTILE)


def answers(method: str) -> str:
    """What one message answers: every value, for another node each."""
    queue = f'{{"name": {TEXT}, "exchange": {TEXT}, "routing_key": {TEXT}, "celeriac": {TEXT}}}'
    values = [
        *READABLE,
        *(DEEP, OKS, TEXT, f"[{TEXT}]", f"{{{TEXT}: {TEXT}}}", f'{{"ok": {TEXT}}}', f'{{"error": {TEXT}}}'),
        *(f"[{queue}, {{}}, null]", f'{{"pool": {TEXT}, "celeriac": {{"events": {DEEP}}}}}'),
        *(f'[{{"id": {TEXT}, "name": 5, "args": {DEEP}, "kwargs": null, "time_start": 1e300}}]',),
        *(f'{{"pool": {{"max-concurrency": {value}, "processes": {value}}}}}' for value in READABLE),
    ]
    named = ", ".join(f"{json.dumps(f'{NODE}{number}')}: {value}" for number, value in enumerate(values))
    return f"{{{named}}}"


class Liar(threading.Thread):
    """Somebody who answers for workers that there are not."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def __enter__(self) -> Self:
        self.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(20)

    def run(self) -> None:
        asyncio.run(self._answer())

    async def _answer(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with Celeriac("liar", self._url, "memory://") as app:
            fanout = app.connections().broker.fanout
            assert fanout is not None
            async with fanout.listen([Binding(exchange=Exchange("celery.pidbox"))]) as heard:
                self._ready.set()

                async def lie() -> None:
                    async for message in heard:
                        assert isinstance(message, Envelope)
                        request = read_request(message, Codecs())
                        if request.reply_to is not None:
                            body = answers(request.method).encode()
                            headers = {"ticket": request.ticket, "clock": 1}
                            lies = Envelope(body=body, content_type="application/json", headers=headers)
                            await fanout.answer(ReplyTo(*request.reply_to), lies)

                lying = asyncio.create_task(lie())
                await self._end.wait()
                lying.cancel()


COMMANDS: Sequence[tuple[list[str], int, str]] = [
    (["status"], 0, "\\x1b]0;PWNED"),
    (["status", "--json"], 0, "\\u009b31m"),
    (["inspect", "active"], 0, "\\u202e"),
    (["inspect", "active", "--json"], 0, "\\u202e"),
    (["inspect", "report"], 0, "\\x1b]0;PWNED"),
    (["inspect", "ping", "-d", HOSTILE], 0, "note: no answer"),
    (["control", "pool_grow", "1"], 0, "OK"),
    (["control", "add_consumer", HOSTILE, "--json"], 0, "\\u202e"),
    (["queues"], 0, "queue"),
    (["queues", "--json"], 0, "{}"),
    (["queues", "pause", NAME], 0, "is paused"),
    (["queues", "resume", NAME], 0, "goes on"),
    (["doctor"], 0, "software"),
    (["call", f"task{HOSTILE}", "--wait", "--timeout", "2.5"], 4, "was not ready"),
]


def test_no_answer_ends_a_command_or_acts_on_the_terminal(project: Project, monkeypatch: pytest.MonkeyPatch):
    places = ["-b", project.url, "--backend", project.url]
    with Liar(project.url):
        for arguments, code, shown in COMMANDS:
            ended, written = on_a_terminal(monkeypatch, *arguments, *places, columns=500)
            assert (arguments, ended) == (arguments, code), written[-3000:]
            assert shown in check(written), (arguments, written[-3000:])


async def keep(url: str) -> None:
    entry = Entry(
        name=NAME, task=HOSTILE.replace("\0", ""), schedule=Interval(60.0), options='{"queue": "q"}'
    )
    async with Celeriac("shop", url, "memory://") as app:
        texts = [*records(), write_entry(entry)]
        await app.connections().broker.board.sets.add(
            "beat.shop", {"entries": texts, "paused": [HOSTILE]}, 60
        )


PERIODIC: Sequence[tuple[list[str], int, str]] = [
    ([], 0, "\\x1b]0;PWNED"),
    (["--json"], 0, "\\u009b31m"),
    (["next", NAME, "-n", "2"], 0, "+0000"),
    (["trigger", NAME], 0, "-"),
    (["pause", NAME], 0, "\\u202e"),
    (["resume", NAME], 0, "\\u202e"),
    (["backfill", NAME, "2026-01-01T00:00", "2026-01-01T00:05"], 0, "6 slots sent"),
    (["remove", NAME], 0, "\\u202e"),
    (["remove", NAME], 1, "\\u202e"),
]


def test_no_periodic_task_acts_on_the_terminal(project: Project, monkeypatch: pytest.MonkeyPatch):
    asyncio.run(keep(project.url))
    for arguments, code, shown in PERIODIC:
        line = ["schedules", *arguments, "-A", project.module, "-b", project.url, "--backend", project.url]
        ended, written = on_a_terminal(monkeypatch, *line, columns=500)
        assert (arguments, ended) == (arguments, code), written[-3000:]
        assert shown in check(written), (arguments, written[-3000:])
