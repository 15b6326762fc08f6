"""A task that failed runs again by the same message: dates, bytes, large arguments and headers of one's own."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from celeriac import Celeriac, Context
from celeriac.contracts.set_aside import DeadLetter
from celeriac.monitor.again import RETRY_OF
from celeriac.wire.envelope import Envelope
from tests.web.site import Site

MOMENT = datetime(2026, 3, 1, 6, 30, 15, 123456, UTC)
LARGE = "ä\x00\u202e'\"" + "x" * 50_000
CHANGED = frozenset({"id", "root_id", "retries", RETRY_OF, "x-celeriac-sent"})
"""The headers that differ from the first message's."""


@pytest.fixture(params=["redis", "rabbit", "postgres", "sqlite"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of a broker and a result store."""
    if request.param == "sqlite":
        (tmp_path / "shop.db").touch()  # the dashboard makes no file, which would hide a mistyped name
        return f"sqlite:///{tmp_path}/shop.db", f"sqlite:///{tmp_path}/shop.db"
    url = str(request.getfixturevalue(f"{request.param}_url"))
    return url, str(request.getfixturevalue("redis_url")) if request.param == "rabbit" else url


# Msgpack has bytes and no dates, JSON has dates, and bytes as marked text.
@pytest.mark.parametrize(
    ("serializer", "moment"), [("msgpack", MOMENT.isoformat()), ("json", MOMENT)], ids=["msgpack", "json"]
)
def test_the_same_bytes_arrive(
    urls: tuple[str, str], queue: str, tmp_path: Path, serializer: str, moment: str | datetime
):
    broker, backend = urls
    picture = os.urandom(300)
    app = Celeriac(
        "shop", broker, backend, default_queue=queue, send_events=True, accept_content=("json", "msgpack")
    )
    got = list[tuple[Any, ...]]()
    headers = list[dict[str, Any]]()

    @app.task(name="shop.pay")
    async def pay(ctx: Context, moment: datetime, picture: bytes, text: str, *, note: str) -> None:
        got.append((moment, picture, text, note))
        headers.append(dict(ctx.headers))
        raise ValueError("no money")

    async def kept(id: str) -> Envelope:
        letters = list[DeadLetter]()
        async with asyncio.timeout(60):
            while not letters:
                letters = list(await app.connections().broker.failed.find([id]))
        envelope = letters[0].envelope
        assert isinstance(envelope, Envelope)
        return envelope

    async def failed_again(old: str) -> str:
        async with asyncio.timeout(60):
            while True:
                for letter in await app.connections().broker.failed.list(10_000):
                    envelope = letter.envelope
                    if isinstance(envelope, Envelope) and envelope.headers.get(RETRY_OF) == old:
                        return letter.id

    async def scenario(site: Site) -> None:
        async with app, app.worker():
            await asyncio.to_thread(site.shows, "workers", "celeriac@")
            sent = await app.send_task(
                "shop.pay",
                [moment, picture, LARGE],
                {"note": "x"},
                serializer=serializer,
                headers={"tenant": "ä/7", "number": 7},
            )
            first = await kept(sent.id)
            await asyncio.to_thread(site.told, sent.id, "FAILURE")
            page = await asyncio.to_thread(site.page, f"tasks/{sent.id}")
            if serializer == "json":  # the dashboard reads what it is told to accept
                assert "tenant" in page
            said = await asyncio.to_thread(site.post, "do/tasks", action="retry", id=sent.id, back="tasks")
            assert "1%20task%20sent%20again" in said
            new = await failed_again(sent.id)
            second = await kept(new)
            assert (second.body, second.content_type, second.content_encoding) == (
                first.body,
                first.content_type,
                first.content_encoding,
            )
            assert {name: value for name, value in second.headers.items() if name not in CHANGED} == {
                name: value for name, value in first.headers.items() if name not in CHANGED
            }
            assert msgspec.structs.asdict(second)["priority"] == first.priority
            assert second.headers["id"] == new

    with Site(broker, tmp_path, backend=backend) as site:
        asyncio.run(scenario(site))
    assert got == 2 * [(MOMENT, picture, LARGE, "x")]
    assert headers[0] == {"tenant": "ä/7", "number": 7}
    assert {name: headers[1][name] for name in headers[0]} == headers[0]
