"""Connections belong to a loop and a process, and are closed with the loop."""

import asyncio
import gc
import threading
import warnings

import pytest

from celeriac import Celeriac
from celeriac.client.connections import Connections, ConnectionTable
from celeriac.client.publisher import Publisher
from celeriac.settings import Settings
from celeriac.wire.content import Codecs


class Opened:
    """Stands for an adapter; remembers in which loop it was closed."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.closed_in = None

    async def close(self):
        await asyncio.sleep(0)
        self.closed_in = asyncio.get_running_loop()


@pytest.fixture
def opened():
    return []


@pytest.fixture
def table(opened):
    def open_connections():
        adapter = Opened()
        opened.append(adapter)
        return Connections(adapter, adapter, Publisher(adapter, Codecs(), Settings()), owned=(adapter,))

    return ConnectionTable(open_connections)


async def test_one_loop_one_connection(table, opened):
    assert table.current() is table.current()
    assert len(opened) == 1


def test_every_loop_has_its_own_and_closes_it_at_its_end(table, opened):
    async def use():
        table.current()

    for _ in range(3):
        asyncio.run(use())
    assert [adapter.closed_in is adapter.loop for adapter in opened] == [True] * 3
    assert len({id(adapter) for adapter in opened}) == 3


async def test_closing_closes_here_and_using_again_opens_again(table, opened):
    table.current()
    await table.close()
    assert opened[0].closed_in is asyncio.get_running_loop()
    await table.close()
    table.current()
    assert len(opened) == 2
    await table.close()


async def test_another_loop_is_left_alone(table, opened):
    table.current()

    async def use_and_close():
        table.current()
        await table.close()

    await asyncio.to_thread(asyncio.run, use_and_close())
    assert [adapter.closed_in is not None for adapter in opened] == [False, True]
    await table.close()


async def test_a_table_that_nobody_holds_closes_what_it_opened(opened):
    def use():
        class Closing(Opened):
            async def close(self):
                done.set()

        opened.append(Closing())
        adapter = opened[0]
        table = ConnectionTable(
            lambda: Connections(adapter, adapter, Publisher(adapter, Codecs(), Settings()), owned=(adapter,))
        )
        table.current()

    done = asyncio.Event()
    use()
    gc.collect()
    await asyncio.wait_for(done.wait(), 60)


def test_without_a_loop_there_is_nothing_to_connect_in(table):
    with pytest.raises(RuntimeError):
        table.current()


def test_a_program_that_never_closes_leaves_nothing_open(tmp_path, redis_url, queue):
    """Run as a program would: send, leave the loop, send again in another."""

    async def send(app):
        await app.send_task("x", queue=queue)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for broker in (f"sqlite:///{tmp_path}/a.db", redis_url):
            app = Celeriac("shop", broker=broker, backend="disabled://")
            asyncio.run(send(app))
            asyncio.run(send(app))
        gc.collect()


def test_a_loop_that_is_closed_by_hand_leaves_nothing_open(tmp_path, redis_url, queue):
    """As a program does that makes a loop a call, and never says ``shutdown_asyncgens``."""

    async def use(app):
        result = await app.send_task("x", queue=queue)
        await result.info()

    for place in (f"sqlite:///{tmp_path}/a.db", redis_url):
        app, other = (Celeriac(name, broker=place, backend=place) for name in ("shop", "other"))
        before = set(threading.enumerate())
        for _ in range(2):
            loop = asyncio.new_event_loop()
            with warnings.catch_warnings():
                warnings.simplefilter("error", ResourceWarning)
                loop.run_until_complete(asyncio.wait_for(use(app), 60))
                loop.run_until_complete(asyncio.wait_for(use(other), 60))
                loop.close()
                del loop
                gc.collect()
            left = [thread for thread in threading.enumerate() if thread.name.startswith("sqlite")]
            assert set(left) <= before
