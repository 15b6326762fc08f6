"""A SQLite URL names the same file for the broker and for the results, or none."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("shop.db", "shop.db"),
        ("my%20shop.db", "my shop.db"),
        ("my shop.db", "my shop.db"),
        ("a%23b%3Fc.db", "a#b?c.db"),
        ("100%25.db", "100%.db"),
        ("me@home;1:2.db", "me@home;1:2.db"),
        ("ü.db", "ü.db"),
    ],
)
@pytest.mark.parametrize("scheme", ["sqlite", "db+sqlite", "DB+SQLITE"])
def test_both_read_a_name_alike(tmp_path: Path, scheme: str, written: str, name: str):
    broker = f"sqlite:///{tmp_path}/{written}"
    asyncio.run(use(broker, broker.replace("sqlite", scheme, 1)))
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".db"] == [name]
    with closing(sqlite3.connect(tmp_path / name)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "celery_taskmeta" in tables
    assert any(table.startswith("celeriac_") for table in tables)


async def use(broker: str, backend: str) -> None:
    async with Celeriac("shop", broker, backend) as app:
        result = await app.send_task("shop.add", [1, 2], queue="q")
        await app.connections().backend.forget([result.id])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///shop.db?mode=ro", "%3F"),
        ("sqlite:///a#b.db", "%23"),
        ("sqlite://shop.db", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///one.db;sqlite:///two.db", "names several servers: give one"),
        ("sqlite://user:S3CRET@host/shop.db", "names no file"),
        ("sqlite:///a%00b.db", "control character"),
        ("sqlite:///a\nb.db", "control character"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_by_both(url: str, words: str):
    with pytest.raises(ConfigError, match=words):
        Celeriac("shop", url)
    with pytest.raises(ConfigError, match=words):
        Celeriac("shop", "memory://", f"db+{url}")
