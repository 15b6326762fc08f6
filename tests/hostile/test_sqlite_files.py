"""A SQLite file that others write names no file of ours, and what we make is its owner's alone."""

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celeriac import Celeriac, ConfigError
from tests.hostile.check import make_app, runs, until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


@pytest.fixture
def loose_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, set[int]]:
    """Return the rights of every kind of file."""
    found: dict[str, set[int]] = {}
    for entry in directory.iterdir():
        found.setdefault(entry.suffix[1:], set()).add(entry.stat().st_mode & 0o777)
    return found


async def test_a_forged_listener_deletes_no_file(directory: Path):
    app = make_app(f"sqlite:///{directory}/x.db", "q")
    outside, beside, in_form = (
        directory.parent / "a.txt",
        directory / "b.txt",
        directory / "x.db.0123456789ab.wake",
    )
    for victim in (outside, beside, in_form):
        victim.write_text("precious")
    foreign = directory / "foreign.sock"
    link = directory / "x.db.ba9876543210.wake"
    link.symlink_to(beside)
    names = [
        str(outside),
        "../a.txt",
        "b.txt",
        in_form.name,
        link.name,
        foreign.name,
        "x.db.0123456789ab.wake/",
        "",
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(foreign))
        listening.setblocking(False)
        async with app, app.worker():
            assert await runs(app)
            with closing(sqlite3.connect(directory / "x.db", isolation_level=None)) as file:
                own = {topic for (topic,) in file.execute("SELECT DISTINCT topic FROM celeriac_listener")}
                assert own
                rows = [(name, topic) for name in names for topic in own | {"result", "q"}]
                file.executemany("INSERT INTO celeriac_listener VALUES (?, ?)", rows)
                assert await runs(app)
                assert await runs(app)
                left = {name for (name,) in file.execute("SELECT name FROM celeriac_listener")}
        assert not left & set(names), "who cannot be poked is forgotten"
        with pytest.raises(BlockingIOError):
            listening.recv(1)
    assert [victim.read_text() for victim in (outside, beside, in_form)] == ["precious"] * 3
    assert link.is_symlink()
    assert foreign.exists()


async def test_a_forged_owner_deletes_no_file(directory: Path):
    app = make_app(f"sqlite:///{directory}/x.db", "q")

    def lock(number: int) -> Path:
        return directory / f"x.db.{number & (1 << 64) - 1:016x}.owner"

    lock(1).write_text("precious")
    lock(2).symlink_to(lock(1))
    lock(3).mkdir()
    os.mkfifo(lock(4))
    numbers = [1, 2, 3, 4, 5, -1, 2**63 - 1, -(2**63), "x", b"\xff", 2.5]
    async with app:
        await app.connections().broker.depth("q")
        with closing(sqlite3.connect(directory / "x.db", isolation_level=None)) as file:
            row = "INSERT INTO celeriac_message (queue, priority, owner, frame) VALUES ('q', 0, ?, X'7b7d')"
            file.executemany(row, [(number,) for number in numbers])
        async with app.worker():
            assert await runs(app)

            async def all_came_back() -> bool:
                return await app.connections().broker.dead.count() == len(numbers)

            await until(all_came_back)
    assert lock(1).read_text() == "precious"
    assert lock(2).is_symlink()
    assert lock(3).is_dir()
    assert lock(4).is_fifo()


@pytest.mark.usefixtures("loose_umask")
async def test_what_is_made_is_its_owners_alone(directory: Path):
    app = make_app(f"sqlite:///{directory}/x.db", "q", f"sqlite:///{directory}/results.db")
    async with app, app.worker():
        assert await runs(app)
        assert modes(directory) == {
            "db": {0o600},
            "db-wal": {0o600},
            "db-shm": {0o600},
            "wake": {0o600},
            "owner": {0o600},
        }


@pytest.mark.usefixtures("loose_umask")
async def test_a_group_may_share_the_file(directory: Path):
    url = f"sqlite:///{directory}/x.db"
    app = Celeriac("shared", broker=url, default_queue="q", sqlite_group=True)

    @app.task(name="ok")
    async def ok(number: int) -> int:
        return number

    async with app, app.worker():
        assert await runs(app)
        assert modes(directory) == {
            "db": {0o660},
            "db-wal": {0o660},
            "db-shm": {0o660},
            "wake": {0o660},
            "owner": {0o660},
        }


def test_the_default_file_is_no_link(directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(directory)
    for name in ("CELERY_BROKER_URL", "CELERIAC_BROKER_URL", "BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    (directory / "shop.db").symlink_to(directory.parent / "elsewhere.db")
    with pytest.raises(ConfigError, match=r"shop\.db.*symbolic link.*broker='sqlite:////"):
        Celeriac("shop")
    Celeriac("shop", broker="sqlite:///shop.db")
