"""What a connection writes in one turn of the loop."""

import asyncio

from celeriac.servers.rabbitmq.protocol.connection import Connection
from celeriac.servers.rabbitmq.protocol.url import parse_amqp_url


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0


async def test_a_turn_that_writes_much_goes_out_in_parts_and_in_order() -> None:
    connection, wire = Connection(parse_amqp_url("amqp://").nodes[0], 0.0, "test"), Wire()
    connection.connection_made(wire)
    wire.written.clear()
    messages = [bytes([number]) for number in range(60)]
    for message in messages:
        connection.write(message)
    before = list(wire.written)
    await asyncio.sleep(0)
    assert before, "the server waits for the end of the turn"
    assert len(wire.written) <= 3
    assert b"".join(wire.written) == b"".join(messages)


async def test_a_turn_that_writes_little_writes_once() -> None:
    connection, wire = Connection(parse_amqp_url("amqp://").nodes[0], 0.0, "test"), Wire()
    connection.connection_made(wire)
    wire.written.clear()
    for message in (b"a", b"b", b"c"):
        connection.write(message)
    await asyncio.sleep(0)
    assert wire.written == [b"abc"]
