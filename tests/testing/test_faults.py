"""Fault wrappers: a real adapter does what the script says, and nothing else."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest

from celeriac import BackendUnavailable, BrokerUnavailable
from celeriac.errors import BrokerError, DeliveryLost
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.lines import Message
from celeriac.servers.memory.results import MemoryBackend
from celeriac.testing.broker_contract import Plant
from celeriac.testing.contracts import BackendContract, BrokerContract
from celeriac.testing.faults import Faults, FaultyBackend, FaultyBroker
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.result import SUCCESS, ResultRecord

MESSAGE, ROUTE = Envelope(body=b"{}"), Route("q", queue="q")


class TestFaultyBroker(BrokerContract):
    """Without faults a wrapped broker keeps the whole contract."""

    @pytest.fixture
    async def real(self) -> AsyncIterator[MemoryBroker]:
        real = MemoryBroker()
        yield real
        await real.close()

    @pytest.fixture
    def broker(self, real: MemoryBroker) -> FaultyBroker:
        return FaultyBroker(real, Faults())

    @pytest.fixture
    def second(self, real: MemoryBroker) -> FaultyBroker:
        return FaultyBroker(real, Faults())

    @pytest.fixture
    def plant(self, real: MemoryBroker) -> Plant:
        async def plant(queue: str, raw: bytes) -> None:
            real._lines.enqueue(Message(0, real._lines.next_serial(), queue, raw))

        return plant


class TestFaultyBackend(BackendContract):
    """So does a wrapped result store."""

    @pytest.fixture
    def backend(self) -> FaultyBackend:
        return FaultyBackend(MemoryBackend(Codecs()), Faults())

    @pytest.fixture
    def second(self, backend: FaultyBackend) -> FaultyBackend:
        return backend


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def broker(faults: Faults) -> FaultyBroker:
    return FaultyBroker(MemoryBroker(), faults)


async def test_a_call_fails_as_often_as_it_is_told_to(broker: FaultyBroker, faults: Faults):
    faults.fail("publish", times=2)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="publish"):
            await broker.publish(MESSAGE, ROUTE)
    assert await broker.depth("q") == 0
    await broker.publish_many([(MESSAGE, ROUTE)])
    assert await broker.depth("q") == 1
    assert faults.passed["publish", "before"] == 3
    assert faults.passed["publish", "after"] == 1


async def test_a_lost_answer_is_an_effect_that_landed(broker: FaultyBroker, faults: Faults):
    faults.fail("publish", "after")
    with pytest.raises(BrokerUnavailable):
        await broker.publish(MESSAGE, ROUTE)
    assert await broker.depth("q") == 1


async def test_the_error_may_be_chosen_and_may_last(broker: FaultyBroker, faults: Faults):
    faults.fail("publish", times=None, error=BrokerError("full"))
    for _ in range(3):
        with pytest.raises(BrokerError, match="full"):
            await broker.publish(MESSAGE, ROUTE)
    faults.clear()
    await broker.publish(MESSAGE, ROUTE)


async def test_faults_of_one_point_happen_in_their_order(broker: FaultyBroker, faults: Faults):
    faults.skip("publish").fail("publish").skip("publish").fail("publish", error=BrokerError("again"))
    await broker.publish(MESSAGE, ROUTE)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(MESSAGE, ROUTE)
    await broker.publish(MESSAGE, ROUTE)
    with pytest.raises(BrokerError, match="again"):
        await broker.publish(MESSAGE, ROUTE)
    assert await broker.depth("q") == 2


async def test_a_delay(broker: FaultyBroker, faults: Faults):
    faults.delay("publish", seconds=0.1)
    began = time.monotonic()
    await broker.publish(MESSAGE, ROUTE)
    assert time.monotonic() - began >= 0.1


async def test_a_pause_holds_who_comes_and_tells_when_the_first_is_there(
    broker: FaultyBroker, faults: Faults
):
    pause = faults.pause("publish")
    faults.fail("publish")
    held = [asyncio.create_task(broker.publish(MESSAGE, ROUTE)) for _ in range(2)]
    await pause.reached.wait()
    assert await broker.depth("q") == 0
    pause.resume()
    outcomes = await asyncio.gather(*held, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailable, type(None)]
    await broker.publish(MESSAGE, ROUTE)
    assert await broker.depth("q") == 2


async def test_taking_and_settling(broker: FaultyBroker, faults: Faults):
    await broker.publish(MESSAGE, ROUTE)
    faults.fail("subscribe").fail("take").fail("ack").fail("ack", "after")
    with pytest.raises(BrokerUnavailable):
        async with broker.subscribe(["q"]):
            pass
    async with broker.subscribe(["q"]) as subscription:
        with pytest.raises(BrokerUnavailable):
            await subscription.take(1)
        (delivery,) = await subscription.take(1)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await delivery.receipt.ack()
    with pytest.raises(DeliveryLost):
        await delivery.receipt.ack()


def test_what_was_taken_cannot_be_dropped(faults: Faults):
    with pytest.raises(ValueError, match="take"):
        faults.fail("take", "after")


async def test_a_result_store_fails_with_its_own_error(faults: Faults):
    backend = FaultyBackend(MemoryBackend(Codecs()), faults)
    encoded = backend.encode(ResultRecord(task_id="a", status=SUCCESS, result=1))
    faults.fail("store").fail("load")
    with pytest.raises(BackendUnavailable):
        await backend.store(encoded)
    with pytest.raises(BackendUnavailable):
        await backend.load(["a"])
    assert await backend.load(["a"]) == [None]
    await backend.store(encoded)
    assert await backend.load(["a"]) != [None]


async def test_until_looks_again_at_every_call(broker: FaultyBroker, faults: Faults):
    async def two() -> bool:
        return await broker.depth("q") == 2

    waiting = asyncio.create_task(faults.until(two))
    await broker.publish(MESSAGE, ROUTE)
    await asyncio.sleep(0)
    assert not waiting.done()
    await broker.publish(MESSAGE, ROUTE)
    await asyncio.wait_for(waiting, 5)


async def test_a_process_killed_at_a_point_is_gone_there_and_then():
    program = """
import asyncio
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.lines import Message
from celeriac.testing.faults import Faults, FaultyBroker
from celeriac.wire.envelope import Envelope, Route

async def main():
    broker = FaultyBroker(MemoryBroker(), Faults().kill_at("publish", "after"))
    print("before", flush=True)
    await broker.publish(Envelope(body=b"{}"), Route("q", queue="q"))
    print("after", flush=True)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    output, _ = await process.communicate()
    assert (output, process.returncode) == (b"before\n", -signal.SIGKILL)


def test_a_point_that_is_none_is_refused():
    for ask in (Faults().fail, Faults().pause, Faults().kill_at, Faults().skip):
        with pytest.raises(ValueError, match=r"the points are publish, .* store, "):
            ask("stroe")
    with pytest.raises(ValueError, match="'before' and 'after'"):
        Faults().fail("store", "during")
