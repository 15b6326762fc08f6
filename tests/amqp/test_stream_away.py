"""A stream that RabbitMQ knows by name alone, as after a kill of its node just after the stream was made."""

from __future__ import annotations

import pytest

from celeriac.servers.rabbitmq.ledger import Entry, Ledger
from celeriac.servers.rabbitmq.protocol.errors import QueueAway
from tests.amqp.conftest import MakeBroker
from tests.servers import RabbitServer


def forget_process(server: RabbitServer, queue: str) -> None:
    """Have the node know a durable queue and not what runs it."""
    server.control(
        "eval", f'mnesia:dirty_delete(rabbit_queue, rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)).'
    )


async def test_the_log_goes_on_without_a_stream_that_stays_away(
    rabbit_server: RabbitServer, make_broker: MakeBroker, unique, caplog
):
    name = unique("ledger")
    earlier = Ledger(make_broker().link, name)
    await earlier.append(Entry(queue="old"))
    forget_process(rabbit_server, name)

    patient, read = Ledger(make_broker().link, name), []
    patient.readers.append(read.append)
    for _ in range(2):
        with pytest.raises(QueueAway, match="is down or inaccessible"):
            await patient.follow()
    with pytest.raises(QueueAway):
        await patient.append(Entry(queue="refused"))

    hasty = Ledger(make_broker().link, name, away_for=0.0)
    hasty.readers.append(read.append)
    assert await hasty.can_follow()
    assert "no stream can be had" in caplog.text
    writer = Ledger(make_broker().link, name, away_for=0.0)
    await writer.append(Entry(queue="new"))
    await hasty.settle()
    assert [entry.queue for entry in read] == ["new"], (
        "what is written from now on is read, and what was is not"
    )
