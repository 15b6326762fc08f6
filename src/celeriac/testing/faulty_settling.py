"""Receipts and settlements with faults on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from celeriac.contracts.backend import EncodedResult, Standing
from celeriac.contracts.board import Mark
from celeriac.contracts.broker import Receipt, UnmarkingReceipt
from celeriac.contracts.server import EarlySettlements, Landing, Settlements
from celeriac.contracts.set_aside import Failed
from celeriac.testing.fault_script import Faults, Point
from celeriac.wire.result import SUCCESS


class FaultyReceipt:
    """A real receipt with faults at ``ack``, ``requeue``, ``park`` and ``bury``."""

    __slots__ = ("_faults", "_receipt")

    def __init__(self, receipt: Receipt, faults: Faults) -> None:
        self._receipt = receipt
        self._faults = faults

    @property
    def real(self) -> Receipt:
        """The receipt behind the faults."""
        return self._receipt

    async def ack(self, *, surely: bool = False) -> None:
        # Else the effect could still be on its way when the fault after it comes.
        landed = surely or self._faults.awaits("ack", "after")
        await self._faults.around("ack", lambda: self._receipt.ack(surely=landed))

    async def requeue(self) -> None:
        await self._faults.around("requeue", self._receipt.requeue)

    async def park(self, due: float) -> None:
        await self._faults.around("park", lambda: self._receipt.park(due))

    async def bury(self, reason: str) -> None:
        await self._faults.around("bury", lambda: self._receipt.bury(reason))

    async def fail(self, failed: Failed) -> None:
        await self._faults.around("ack", lambda: self._receipt.fail(failed))


class _FaultyUnmarkingReceipt(FaultyReceipt):
    """One that removes marks too."""

    __slots__ = ()

    async def settle_and_unmark(self, mark: Mark, kept: str | Failed | None = None) -> None:
        assert isinstance(self._receipt, UnmarkingReceipt)
        settle = partial(self._receipt.settle_and_unmark, mark, kept)
        await self._faults.around("bury" if isinstance(kept, str) else "ack", settle)


def faulty_receipt(receipt: Receipt, faults: Faults) -> FaultyReceipt:
    """Return a receipt with faults that has the abilities of the real one."""
    kind = _FaultyUnmarkingReceipt if isinstance(receipt, UnmarkingReceipt) else FaultyReceipt
    return kind(receipt, faults)


class FaultySettlements:
    """Real settlements with the faults of all that one step does.

    What happens before the first of its effects happens before the step; the moments between the effects are no more,
    so what is to happen then happens after it.
    """

    def __init__(self, settlements: Settlements, faults: Faults) -> None:
        self._settlements = settlements
        self._faults = faults
        self.limit = settlements.limit

    async def land(self, landing: Landing) -> Sequence[Standing]:
        first, *others = _points(landing)
        await self._faults.at(first, "before")
        receipt = landing.receipt.real if isinstance(landing.receipt, FaultyReceipt) else landing.receipt
        standings = await self._settlements.land(msgspec.structs.replace(landing, receipt=receipt))
        await self._faults.at(first, "after")
        for point in others:
            await self._faults.at(point, "before")
            await self._faults.at(point, "after")
        return standings


class _FaultyEarlySettlements(FaultySettlements):
    """Those that also carry what belongs to messages that are acknowledged before their run."""

    def __init__(self, settlements: Settlements, early: EarlySettlements, faults: Faults) -> None:
        super().__init__(settlements, faults)
        self._early = early

    async def acknowledge(self, receipt: Receipt) -> None:
        real = receipt.real if isinstance(receipt, FaultyReceipt) else receipt
        await self._faults.around("ack", lambda: self._early.acknowledge(real))

    async def store(self, result: EncodedResult) -> None:
        await self._faults.around("store", lambda: self._early.store(result))


def faulty_settlements(settlements: Settlements, faults: Faults) -> FaultySettlements:
    """Return settlements with faults that have the abilities of the real ones."""
    if isinstance(settlements, EarlySettlements):
        return _FaultyEarlySettlements(settlements, settlements, faults)
    return FaultySettlements(settlements, faults)


def _points(landing: Landing) -> list[Point]:
    """Return what a step does, in the order in which it is done where there is no such step."""
    settled: list[Point] = [] if landing.held else ["bury" if landing.buried is not None else "ack"]
    stored: list[Point] = ["store"] if landing.results else []
    counted: list[Point] = ["count"] if landing.parts else []
    published: list[Point] = ["publish"] if landing.messages and not landing.held else []
    success = any(result.record.status == SUCCESS for result in landing.results)
    told = [*published, *stored, *counted] if success else [*stored, *counted, *published]
    return [*told, *settled]
