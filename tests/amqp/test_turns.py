"""What a connection writes and reads in one turn of the loop."""

import asyncio

from celeriac.servers.rabbitmq.protocol import frames
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.connection import Connection
from celeriac.servers.rabbitmq.protocol.url import parse_amqp_url


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def pause_reading(self) -> None:
        """Bring nothing."""
        self.paused = True

    def resume_reading(self) -> None:
        """Go on."""
        self.paused = False

    def close(self) -> None:
        """Be gone."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0


def connected() -> tuple[Connection, Wire]:
    """A connection that has said no more than its preface."""
    connection, wire = Connection(parse_amqp_url("amqp://").nodes[0], 0.0, "test"), Wire()
    connection.connection_made(wire)
    wire.written.clear()
    return connection, wire


def confirming(connection: Connection) -> tuple[Channel, list[int]]:
    """A channel, and the numbers of what was confirmed on it."""
    confirmed: list[int] = []
    channel = connection.channel()
    channel.on_confirm = lambda serial, multiple, taken: confirmed.append(serial)
    return channel, confirmed


def feed(connection: Connection, data: bytes) -> None:
    """Let this arrive."""
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


async def test_a_turn_that_writes_much_goes_out_in_parts_and_in_order() -> None:
    connection, wire = connected()
    messages = [bytes([number]) for number in range(60)]
    for message in messages:
        connection.write(message)
    before = list(wire.written)
    await asyncio.sleep(0)
    assert before, "the server waits for the end of the turn"
    assert len(wire.written) <= 3
    assert b"".join(wire.written) == b"".join(messages)


async def test_a_turn_that_writes_little_writes_once() -> None:
    connection, wire = connected()
    for message in (b"a", b"b", b"c"):
        connection.write(message)
    await asyncio.sleep(0)
    assert wire.written == [b"abc"]


async def test_much_that_came_together_is_read_in_parts_and_in_order() -> None:
    connection, wire = connected()
    channel, confirmed = confirming(connection)
    confirms = [frames.ack(channel.number, serial) for serial in range(1, 401)]
    feed(connection, b"".join(confirms)[:-5])
    first = len(confirmed)
    assert 0 < first < 200, "all else waits until everything is read"
    assert wire.paused
    for _ in confirms:
        await asyncio.sleep(0)
    assert not wire.paused
    assert len(confirmed) == 399
    feed(connection, confirms[-1][-5:])
    assert confirmed == list(range(1, 401))


async def test_what_had_come_when_the_connection_ended_is_read_first() -> None:
    connection, _ = connected()
    channel, confirmed = confirming(connection)
    feed(connection, b"".join(frames.ack(channel.number, serial) for serial in range(1, 401)))
    assert len(confirmed) < 400
    connection.connection_lost(None)
    assert confirmed == list(range(1, 401))
    assert channel.error is not None
    await asyncio.sleep(0)
    assert confirmed == list(range(1, 401))
