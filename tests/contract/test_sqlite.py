"""The SQLite adapters keep the contracts."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from celeriac.contracts.board import Board
from celeriac.contracts.set_aside import Cap
from celeriac.servers.sqlite import SqlBackend, SqliteBroker
from celeriac.testing.contracts import (
    BackendContract,
    BeatContract,
    BoardContract,
    BrokerContract,
    ChordContract,
    FailedContract,
    FanoutContract,
    OnceContract,
    Plant,
    RemovalContract,
    RevocationContract,
    ScheduleContract,
    SettlementContract,
    SlotsContract,
)
from celeriac.wire.content import Codecs


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def broker(file: Path) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(str(file))
    yield broker
    await broker.close()


@pytest.fixture
async def second(file: Path) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(str(file))
    yield broker
    await broker.close()


@pytest.fixture
def plant(broker: SqliteBroker, file: Path) -> Plant:
    async def plant(queue: str, raw: bytes) -> None:
        await broker.ping()
        with sqlite3.connect(file) as connection:
            connection.execute(
                "INSERT INTO celeriac_message (queue, priority, frame) VALUES (?, 0, ?)", (queue, raw)
            )
        connection.close()

    return plant


class TestSqliteBroker(BrokerContract, RemovalContract, OnceContract, BeatContract):
    """Messages."""


class TestSqliteFailed(FailedContract):
    """What failed for good."""

    @pytest.fixture
    async def capped(self, file: Path) -> AsyncIterator[SqliteBroker]:
        broker = SqliteBroker(str(file), failed=Cap(most=3))
        yield broker
        await broker.close()


class TestSqliteSchedule(ScheduleContract):
    """What is for later."""


class TestSqliteRevocations(RevocationContract):
    """What must not run."""


class TestSqliteFanout(FanoutContract):
    """Telling and asking everybody who listens."""


class TestSqliteBoard(BoardContract, SlotsContract):
    """What a broker's and a result store's users share."""

    @pytest.fixture(params=["broker", "results"])
    async def boards(self, file: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Board, Board]]:
        first, second = (
            SqliteBroker(str(file))
            if request.param == "broker"
            else SqlBackend(f"sqlite:///{file}", Codecs())
            for _ in range(2)
        )
        yield first.board, second.board
        await first.close()
        await second.close()

    @pytest.fixture
    def board(self, boards: tuple[Board, Board]) -> Board:
        return boards[0]

    @pytest.fixture
    def other(self, boards: tuple[Board, Board]) -> Board:
        return boards[1]


class TestSqlBackend(BackendContract, ChordContract):
    @pytest.fixture
    async def backend(self, file: Path) -> AsyncIterator[SqlBackend]:
        backend = SqlBackend(f"sqlite:///{file}", Codecs())
        yield backend
        await backend.close()

    @pytest.fixture
    async def second(self, file: Path) -> AsyncIterator[SqlBackend]:
        backend = SqlBackend(f"sqlite:///{file}", Codecs())
        yield backend
        await backend.close()


class TestSqliteSettlements(SettlementContract):
    """Endings, with the file named in both ways that there are."""

    @pytest.fixture(params=["sqlite", "db+sqlite"])
    async def results(self, file: Path, request: pytest.FixtureRequest) -> AsyncIterator[SqlBackend]:
        backend = SqlBackend(f"{request.param}:///{file}", Codecs())
        yield backend
        await backend.close()
