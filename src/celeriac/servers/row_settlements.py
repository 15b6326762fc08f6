"""Endings as a database lands them: what belongs to one, and what becomes of its receipt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from celeriac.contracts.backend import EncodedPart, Standing
from celeriac.contracts.server import Landing
from celeriac.errors import CeleriacError, DeliveryLost
from celeriac.servers.queue_rows import NewMessage, Settlement, lost_delivery
from celeriac.servers.result_rows import EncodedRow
from celeriac.servers.row_receipt import RowReceipt

_OPEN = Standing()


class Ending(msgspec.Struct, frozen=True):
    """A landing as a database takes it.

    :param waits: publish and settle nothing yet.
    :param weight: bytes of its results, parts and messages.
    """

    settlement: Settlement
    rows: Sequence[EncodedRow]
    parts: Sequence[EncodedPart]
    messages: Sequence[NewMessage]
    waits: bool
    weight: int


async def land(
    landing: Landing,
    rows: Sequence[EncodedRow],
    messages: Sequence[NewMessage],
    by: Callable[[Ending], Awaitable[Sequence[Standing]]],
) -> Sequence[Standing]:
    """Land it, and keep its receipt valid where it is settled later; see ``Settlements.land`` of the contract."""
    receipt = landing.receipt
    assert isinstance(receipt, RowReceipt), "this receipt is another broker's"
    settlement = receipt.spend_for(landing)
    try:
        standings = await by(Ending(settlement, rows, landing.parts, messages, landing.held, landing.weight))
    except DeliveryLost:
        raise
    except CeleriacError:
        receipt.restore()
        raise
    if landing.held or standings:
        receipt.restore()
    return standings


def unless_open(standings: Sequence[Standing]) -> Sequence[Standing]:
    """Return how the chords of an ending stand, nothing where all of them are open or done."""
    return () if all(standing == _OPEN for standing in standings) else standings


def done_of(endings: Sequence[Ending], standings: Sequence[Sequence[Standing]]) -> list[Ending]:
    """Return the endings whose messages are sent and settled now: no chord holds them up."""
    return [ending for ending, stands in zip(endings, standings, strict=True) if not (stands or ending.waits)]


def answers_of(
    endings: Sequence[Ending], valid: Collection[Ending], standings: Sequence[Sequence[Standing]]
) -> list[Sequence[Standing] | DeliveryLost]:
    """Return the answer to each ending; ``standings`` are those of the valid ones, the others are lost."""
    known = {id(ending): stands for ending, stands in zip(valid, standings, strict=True)}
    return [
        known[id(ending)] if id(ending) in known else lost_delivery(ending.settlement) for ending in endings
    ]
