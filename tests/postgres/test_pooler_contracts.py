"""The other contracts behind pgbouncer in transaction mode; ``test_pooler`` has those of broker and results."""

from collections.abc import AsyncIterator, Callable

import pytest

from celeriac.contracts.board import Board
from celeriac.contracts.set_aside import Cap
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.testing.contracts import (
    BeatContract,
    BoardContract,
    ChordContract,
    FailedContract,
    FanoutContract,
    OnceContract,
    RemovalContract,
    RevocationContract,
    ScheduleContract,
    SlotsContract,
)
from tests.postgres import test_pooler as _there

_Broker, _Results = _there.TestBehindAPooler, _there.TestResultsBehindAPooler
pooler, connect = _there.pooler, _there.connect
open_broker, broker = _there.open_broker, _there.broker


class TestOnceBehindAPooler(OnceContract):
    """A key for which messages are published once."""

    second = _Broker.second
    plant = _Broker.plant


class TestRemovalBehindAPooler(RemovalContract):
    """Deleting what waits."""

    second = _Broker.second
    plant = _Broker.plant


class TestScheduleBehindAPooler(ScheduleContract):
    """What waits for its time."""

    second = _Broker.second


class TestBeatBehindAPooler(BeatContract):
    """The slots of periodic tasks."""

    second = _Broker.second


class TestRevocationsBehindAPooler(RevocationContract):
    """What was revoked."""

    second = _Broker.second


class TestFanoutBehindAPooler(FanoutContract):
    """What is published to all."""

    second = _Broker.second


class TestFailedBehindAPooler(FailedContract):
    """Messages of tasks that failed for good."""

    @pytest.fixture
    async def capped(
        self, connect: Callable[..., Connections], broker: PostgresBroker
    ) -> AsyncIterator[PostgresBroker]:
        capped = PostgresBroker(connect("guest"), failed=Cap(most=3))
        yield capped
        await capped.close()


class TestChordsBehindAPooler(ChordContract):
    """The counts of chords."""

    backend = _Results.backend
    second = _Results.second


class TestBoardBehindAPooler(BoardContract, SlotsContract):
    """Leases, marks, windows and sets."""

    backend = _Results.backend
    second = _Results.second

    @pytest.fixture
    async def board(self, backend: PostgresBackend) -> Board:
        await backend.board.sets.revision("")
        return backend.board

    @pytest.fixture
    async def other(self, second: PostgresBackend, board: Board) -> Board:
        await second.board.sets.revision("")
        return second.board
