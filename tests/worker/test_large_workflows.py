"""What a large workflow costs: commands, bytes of messages, memory."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celeriac, chain, chord, group
from celeriac.canvas.freeze import derived_ids, freeze
from celeriac.canvas.launch import Launch, Origin
from celeriac.canvas.nodes import Node
from celeriac.wire.content import Codecs
from celeriac.wire.task import encode
from tests.servers import RedisServer

app = Celeriac("large", broker="memory://")


@app.task(name="same")
async def same(value: Any) -> Any:
    return value


def wide(size: int) -> Node[Any]:
    return group(same.s(number) for number in range(size))


def collected(size: int) -> Node[Any]:
    return chord([same.s(number) for number in range(size)], same.s())


def long(size: int) -> Node[Any]:
    return chain(same.s(1), *(same.s() for _ in range(size - 1)))


def bodies(workflow: Node[Any]) -> list[bytes]:
    """The bodies of the messages that a workflow is sent as."""
    launch = Launch(Origin())
    launch.add(freeze(workflow, derived_ids("large")))
    return [encode(follow_up.message, Codecs()).body for follow_up in launch.follow_ups]


@pytest.mark.parametrize("build", [wide, collected])
async def test_ten_thousand_are_sent_in_a_handful_of_commands(
    build: Callable[[int], Node[Any]], own_redis: RedisServer, queue: str
):
    url, workflow = own_redis.url(), build(10_000)
    async with Celeriac("sends", broker=url, backend=url, default_queue=queue) as sends:
        await sends.signature("same", 1).send()  # connects, and declares the queue
        with own_redis.client() as client:
            before = client.info("stats")["total_commands_processed"]
            await sends.outbox.send_workflow(workflow)
            after = client.info("stats")["total_commands_processed"]
            assert client.llen(queue) == 10_001
        assert after - before < 20


@pytest.mark.parametrize("build", [wide, collected])
def test_memory_grows_with_the_number_of_members_and_no_faster(build: Callable[[int], Node[Any]]):
    def peak(size: int) -> int:
        tracemalloc.start()
        try:
            bodies(build(size))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(2000) < 12 * peak(200)


@pytest.mark.parametrize("build", [collected, long])
def test_a_message_grows_with_the_size_of_the_workflow_and_no_faster(build: Callable[[int], Node[Any]]):
    """A member of a header carries the body, whatever the header's size; a step carries the steps after it."""
    small, large = (max(map(len, bodies(build(size)))) for size in (100, 1000))
    assert large < (11 * small if build is long else small + 20)
    assert large / 1000 < 200
