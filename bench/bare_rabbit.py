"""A loop with nothing around it, to compare a worker on RabbitMQ with; fit for nothing else.

For each message it takes it publishes a result, and acknowledges the message once RabbitMQ has confirmed the result,
over the connection and with the frames of celeriac's own workers. It reads nothing of a message, and every result is
the same. What a worker takes longer is the price of reading, judging, running and writing.
"""

import asyncio
import os
import signal
from contextlib import suppress
from datetime import UTC, datetime

from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.connection import connect
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.protocol.url import parse_amqp_url
from celeriac.servers.rabbitmq.results import ResultMessages
from celeriac.wire.content import Codecs
from celeriac.wire.result import SUCCESS, ResultRecord

AHEAD = 200
"""Messages that RabbitMQ pushes before the first of them is acknowledged: what a worker of 100 slots may have."""


class Loop:
    """Takes messages, publishes results, acknowledges."""

    def __init__(self, channel: Channel, result: bytes) -> None:
        self._channel = channel
        self._result = result
        self._early: set[int] = set()
        self._confirmed = self._acknowledged = 0
        channel.on_message = self._take
        channel.on_confirm = self._confirm

    def _take(self, _: Inbound) -> None:
        self._channel.send(self._result)

    def _confirm(self, last: int, multiple: bool, taken: bool) -> None:
        """Note a confirmation. The nth publish is the result of the nth delivery, whose tag is n."""
        assert taken, "RabbitMQ refused a result"
        if self._confirmed == self._acknowledged:
            asyncio.get_running_loop().call_soon(self._acknowledge)
        if multiple:
            self._confirmed = max(self._confirmed, last)
        else:
            self._early.add(last)
        while self._confirmed + 1 in self._early:
            self._confirmed += 1
            self._early.discard(self._confirmed)

    def _acknowledge(self) -> None:
        if self._confirmed > self._acknowledged:
            self._acknowledged = self._confirmed
            self._channel.send(frames.ack(self._channel.number, self._acknowledged, multiple=True))


async def main(url: str, queue: str, replies: str) -> None:
    """Run until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    connection = await connect(parse_amqp_url(url).nodes[0], 60.0, None, "bare loop")
    channel = connection.channel()
    await channel.call(methods.confirm_publishes())
    await channel.call(methods.limit_unsettled(AHEAD))
    Loop(channel, result_for(replies, channel))
    await channel.call(methods.consume(queue, "bare"))
    await ended.wait()
    await connection.close()


def result_for(replies: str, channel: Channel) -> bytes:
    """Return the frames of a result."""
    messages = ResultMessages(Codecs(), "json", 86400.0, extended=False)
    task_id = "00000000-0000-0000-0000-000000000000"
    body = messages.body(ResultRecord(task_id, SUCCESS, 5, children=[], date_done=datetime.now(UTC)))
    publish = frames.publish_method(channel.number, "", replies, mandatory=False)
    header = messages.header(task_id, len(body), priority=0)
    return publish + frames.content(channel.number, header, body, channel.wire.frame_max)


if __name__ == "__main__":
    with suppress(ModuleNotFoundError):  # as a worker: where it is installed
        import uvloop

        uvloop.install()
    asyncio.run(main(os.environ["CELERY_BROKER_URL"], os.environ["BENCH_QUEUE"], os.environ["BENCH_REPLIES"]))
