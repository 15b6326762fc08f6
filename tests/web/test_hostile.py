"""Whatever events, queues and records hold, each page is shown, and what is in it is only text."""

import json
from collections.abc import AsyncIterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from celeriac import Celeriac
from celeriac.web.dashboard import Dashboard, dashboard
from celeriac.web.doing import ACTIONS
from celeriac.wire.envelope import Envelope, Route
from tests.hostile.test_events import forged, read
from tests.hostile.test_schedules import records
from tests.hostile.texts import TEXTS

HOSTILE = "<script>alert(1)</script>'\"\x1b[2J\u202e\x00\n{{7*7}}"
IDS = [HOSTILE, "\ud800", "../../etc/passwd", "a/b", "x" * 5000, "?x=1#y", "%00", ""]
FORGED = [
    json.dumps(
        {"type": kind, "hostname": f"w@{HOSTILE}", "timestamp": at, "uuid": id, "root_id": IDS[0], **fields}
    )
    for id in IDS
    for at in (1_800_000_000.0, 9e10, 0.0)
    for kind, fields in (
        (
            "task-received",
            {"name": HOSTILE, "args": HOSTILE, "kwargs": HOSTILE, "queue": HOSTILE, "eta": HOSTILE},
        ),
        ("task-progress", {"progress": HOSTILE, "total": -1, "message": HOSTILE}),
        ("task-failed", {"exception": HOSTILE, "traceback": f'  File "{HOSTILE}", line 1, in {HOSTILE}\n'}),
        (
            "worker-heartbeat",
            {"sw_ident": HOSTILE, "sw_ver": HOSTILE, "sw_sys": HOSTILE, "loadavg": [9e8] * 9},
        ),
    )
]


class Browser:
    """Asks the dashboard without a server between."""

    def __init__(self, app: Dashboard) -> None:
        self._app = app

    async def ask(self, path: str, form: Mapping[str, str] | None = None) -> tuple[int, str]:
        before, _, query = path.partition("?")
        body = b"" if form is None else urlencode(form).encode()
        headers = [(b"host", b"localhost"), (b"content-type", b"application/x-www-form-urlencoded")]
        headers += [(b"sec-fetch-site", b"same-origin"), (b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http", "method": "GET" if form is None else "POST", "path": before, "raw_path": before.encode(),
            "query_string": query.encode(), "headers": headers, "root_path": "", "scheme": "http",
            "http_version": "1.1", "client": ("127.0.0.1", 5), "server": ("localhost", 80),
        }  # fmt: skip
        status, parts = 0, list[bytes]()

        async def receive() -> Mapping[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))
            else:
                parts.append(bytes(message.get("body", b"")))  # type: ignore[arg-type]

        await self._app(scope, receive, send)  # type: ignore[arg-type]
        return status, b"".join(parts).decode()


class Scripts(HTMLParser):
    """Notes what could act."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if (tag == "script" and "src" not in names) or any(name.startswith("on") for name in names):
            self.found.append(self.get_starttag_text() or tag)
        if any((value or "").strip().lower().startswith("javascript:") for _, value in attrs):
            self.found.append(self.get_starttag_text() or tag)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with Celeriac("shop", url, url) as app:
        broker = app.connections().broker
        queue = HOSTILE.replace("\x00", "")
        for text in TEXTS.values():
            headers = {"task": HOSTILE, "id": HOSTILE, "argsrepr": HOSTILE}
            await broker.publish(
                Envelope(body=text, headers=headers, content_type=HOSTILE), Route(queue, queue=queue)
            )
        async with broker.subscribe([queue]) as subscription:
            first, second, *rest = await subscription.take(10)
            await first.receipt.bury(HOSTILE)
            await second.receipt.park(9e10)
            for one in rest:
                await one.receipt.requeue()
        await broker.board.sets.add("beat.shop", {"entries": list(records()), "paused": [HOSTILE]}, 60)
        shown = dashboard(app, history=tmp_path / "history.db")
        ready = Browser(shown)
        assert (await ready.ask("/"))[0] == 200
        for event in [*read(*FORGED), *list(forged())[::7]]:
            shown.monitor._take(event)
        await shown.monitor._write_heard()
        yield ready
        await shown.close()


async def test_every_page(browser: Browser):
    ids = [quote(id.encode(errors="replace").decode(), safe="") for id in IDS if id]
    paths = ["/", "/tasks", "/errors", "/queues", "/dead", "/workers", "/scheduled", "/about"]
    paths += (
        [f"/tasks/{id}" for id in ids]
        + [f"/queues/{id}" for id in ids]
        + [f"/workers/w%40{id}" for id in ids]
    )
    odd = ("nan", "-1", "1e400", "9" * 5000, HOSTILE, "\x00")
    for name in (
        "state",
        "name",
        "queue",
        "worker",
        "root",
        "group",
        "text",
        "since",
        "until",
        "before",
        "limit",
    ):
        paths += [f"/tasks?{urlencode({name: value})}" for value in odd]
    for path in paths:
        import time

        b = time.monotonic()
        status, text = await browser.ask(path)
        d = time.monotonic() - b
        if d > 0.3:
            print(round(d, 2), path[:100], len(text))
        assert status in (200, 400, 404), (path[:200], status, text[:500])
        scripts = Scripts()
        scripts.feed(text)
        assert scripts.found == [], path[:200]


async def test_every_button(browser: Browser):
    actions = (
        "retry",
        "cancel",
        "terminate",
        "forget",
        "stop",
        "pause",
        "resume",
        "purge",
        "delete",
        "trigger",
    )
    actions += ("remove", "pool_grow", "pool_shrink", "add_consumer", "cancel_consumer", "shutdown", HOSTILE)
    value = HOSTILE.replace("\x00", "")
    names = ("id", "key", "queue", "name", "node", "n", "job", "args", "kwargs", "back", "text", "state")
    for path in ACTIONS:
        for action in actions:
            for given in (value, "\x00", "9" * 5000, "1"):
                form = {**dict.fromkeys(names, given), "action": action}
                status, text = await browser.ask(path, form)
                assert status in (303, 400, 403, 404), (path, action, given[:20], status, text[:500])
    assert (await browser.ask("/do/tasks", {f"f{number}": "" for number in range(30_000)}))[0] in (
        303,
        400,
        503,
    )
