"""What is sent on a channel that is being closed reaches nobody: the server would end the connection for it."""

import asyncio

import pytest

from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.errors import Unavailable


async def test_a_frame_after_our_close_is_refused_and_the_connection_stands(rabbit_url: str):
    link = Link(rabbit_url, timeout=10)
    connection = await link.connection()
    channel = connection.channel()
    closed = channel.start_closing()
    with pytest.raises(Unavailable, match="is being closed"):
        await channel.start(methods.delete_queue("no such queue"))
    with pytest.raises(Unavailable, match="is being closed"):
        channel.send(b"")
    await asyncio.wait([closed])
    assert (connection.channel()).is_open
    assert connection.error is None
    await link.close()
