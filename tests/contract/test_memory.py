"""The memory adapters keep the contracts."""

from collections.abc import AsyncIterator

import pytest

from celeriac.contracts.board import Board
from celeriac.contracts.set_aside import Cap
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.lines import Message
from celeriac.servers.memory.results import MemoryBackend
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
    SlotsContract,
)
from celeriac.wire.content import Codecs


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker()
    yield broker
    await broker.close()


@pytest.fixture
def second(broker: MemoryBroker) -> MemoryBroker:
    """The same object: memory is shared by nothing else."""
    return broker


@pytest.fixture
def plant(broker: MemoryBroker) -> Plant:
    async def plant(queue: str, raw: bytes) -> None:
        broker._lines.enqueue(Message(0, broker._lines.next_serial(), queue, raw))

    return plant


class TestMemoryBroker(BrokerContract, RemovalContract, OnceContract, BeatContract):
    """Messages."""


class TestMemoryFailed(FailedContract):
    """What failed for good."""

    @pytest.fixture
    async def broker(self, request: pytest.FixtureRequest) -> AsyncIterator[MemoryBroker]:
        most = 3 if "capped" in request.fixturenames else 10_000
        broker = MemoryBroker(failed=Cap(most))
        yield broker
        await broker.close()

    @pytest.fixture
    def capped(self, broker: MemoryBroker) -> MemoryBroker:
        return broker


class TestMemorySchedule(ScheduleContract):
    """What is for later."""


class TestMemoryRevocations(RevocationContract):
    """What must not run."""


class TestMemoryFanout(FanoutContract):
    """Telling and asking everybody who listens."""


class TestMemoryBoard(BoardContract, SlotsContract):
    """What the users of one object share."""

    @pytest.fixture
    def board(self, broker: MemoryBroker) -> Board:
        return broker.board

    @pytest.fixture
    def other(self, board: Board) -> Board:
        return board


class TestMemoryBackend(BackendContract, ChordContract):
    @pytest.fixture
    async def backend(self) -> AsyncIterator[MemoryBackend]:
        backend = MemoryBackend(Codecs())
        yield backend
        await backend.close()

    @pytest.fixture
    def second(self, backend: MemoryBackend) -> MemoryBackend:
        return backend
