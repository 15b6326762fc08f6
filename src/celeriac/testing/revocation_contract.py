"""The suite of revocations: the board keeps them, takes report them, and they outlast parked messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from celeriac.client.revocations import Revocations, Revoked
from celeriac.contracts.broker import Broker
from celeriac.testing.steps import PATIENCE, fresh_queue, publish_numbers, soon, take_some


class RevocationContract:
    """Subclass it and give it two fixtures.

    ``broker``: the broker under test, on a place that holds nothing. ``second``: another connection to the same
    place, as another process would have. The fixtures close what they open.
    """

    pytestmark = pytest.mark.asyncio

    async def test_nothing_is_revoked_at_first(self, broker: Broker) -> None:
        assert await _of(broker).load() == Revoked(await _of(broker).revision())
        assert await _of(broker).load() == Revoked(await _of(broker).revision())

    async def test_every_connection_knows_what_was_revoked(self, broker: Broker, second: Broker) -> None:
        await _of(broker).add(["a", "grüße"], roots=["flow"])
        await _of(second).add(["b"])
        revoked = await _of(second).load()
        assert (revoked.ids, revoked.roots) == _sets(["a", "b", "grüße"], ["flow"])
        assert not revoked.terminate
        assert await _of(broker).load() == revoked

    async def test_it_outlives_the_connection(self, broker: Broker, second: Broker) -> None:
        await second.ping()
        await _of(broker).add(["a"])
        await _of(broker).load()
        await second.close()
        assert (await _of(second).load()).ids == {"a"}

    async def test_what_is_to_be_terminated(self, broker: Broker) -> None:
        await _of(broker).add(["a", "b"], roots=["f"])
        await _of(broker).add(["b", "c"], roots=["g"], terminate=True)
        await _of(broker).add(["c"])
        revoked = await _of(broker).load()
        assert (revoked.ids, revoked.roots) == _sets(["a", "b", "c"], ["f", "g"])
        assert revoked.terminate == {"b", "c", "g"}

    async def test_the_revision_changes_with_every_add(self, broker: Broker, second: Broker) -> None:
        seen = [await _of(broker).revision()]
        for names in (["a"], ["a"], ["b", "c"]):
            await _of(broker).add(names)
            seen.append(await _of(second).revision())
            assert await _of(broker).revision() == seen[-1]
            assert (await _of(broker).load()).revision == seen[-1]
        assert len(set(seen)) == 4

    async def test_the_revision_changes_with_nothing_else(self, broker: Broker, queue: str) -> None:
        await _of(broker).add(["a"])
        before = await _of(broker).revision()
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
            await delivery.receipt.ack()
        assert await _of(broker).revision() == before

    async def test_a_take_tells_the_revision_that_held(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        async with broker.subscribe([queue]) as subscription:
            for number in range(3):
                await publish_numbers(broker, queue, [number])
                await take_some(subscription, 1)
                assert subscription.revision == await _of(second).revision()
                await _of(second).add([f"task-{number}"])
                assert subscription.revision != await _of(second).revision()

    async def test_one_stored_before_a_message_was_taken_is_not_missed(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        async with broker.subscribe([queue]) as subscription:
            for number in range(30):
                waiting = asyncio.create_task(take_some(subscription, 1))
                await _of(second).add([f"task-{number}"])
                stored = await _of(second).revision()
                await publish_numbers(second, queue, [number])
                (delivery,) = await soon(waiting)
                assert subscription.revision == stored
                await delivery.receipt.ack()

    async def test_it_is_dropped_when_its_time_is_over(self, broker: Broker, second: Broker) -> None:
        await _of(broker).add(["kept", "short"])
        await _of(broker).add(["brief"], roots=["passing"], terminate=True, keep=1)
        await _of(broker).add(["short"], keep=1)
        assert (await _of(second).load()).ids == {"kept", "brief", "short"}
        revoked = await _once_gone(second, "brief")
        assert (revoked.ids, revoked.roots) == _sets(["kept", "short"], [])
        assert not revoked.terminate
        await _of(broker).add(["brief"])
        assert (await _of(broker).load()).ids == {"kept", "short", "brief"}

    async def test_it_is_kept_until_what_is_parked_is_due(
        self, broker: Broker, second: Broker, queue: str
    ) -> None:
        await publish_numbers(broker, queue, [1])
        async with broker.subscribe([queue]) as subscription:
            (delivery,) = await take_some(subscription, 1)
            await delivery.receipt.park(time.time() + 60)
        await _of(broker).add(["a"], keep=0.05)
        await second.schedule.delete([parked.id for parked in await second.schedule.list()])
        await _of(broker).add(["b"], keep=0.05)
        await _once_gone(second, "b")
        assert (await _of(second).load()).ids == {"a"}

    async def test_when_all_is_over_the_next_is_not_missed(self, broker: Broker, second: Broker) -> None:
        await _of(broker).add(["brief"], keep=0.05)
        before = await _of(second).revision()
        await _once_gone(second, "brief")
        await _of(broker).add(["next"])
        assert await _of(second).revision() != before
        assert (await _of(second).load()).ids == {"next"}

    async def test_5000_at_once(self, broker: Broker, second: Broker) -> None:
        ids = [f"task-{number}" for number in range(5000)]
        await _of(broker).add(ids, roots=ids[:2500])
        revoked = await _of(second).load()
        assert (revoked.ids, revoked.roots) == _sets(ids, ids[:2500])

    @pytest.fixture
    def queue(self) -> str:
        """Return a name that no other test has."""
        return fresh_queue()


def _of(broker: Broker) -> Revocations:
    return Revocations(broker.board, broker.schedule)


def _sets(ids: Sequence[str], roots: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(ids), frozenset(roots)


async def _once_gone(broker: Broker, id: str) -> Revoked:
    """Return what is revoked once this entry was dropped. No signal comes, so this looks again and again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            revoked = await _of(broker).load()
            if id not in revoked.ids:
                return revoked
            await asyncio.sleep(0.02)
