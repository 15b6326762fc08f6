"""A process on a SQLite file: publishes, or takes and prints, until it takes "stop" or is killed."""

import asyncio
import os
import sys
import time

from celeriac.contracts.broker import Delivery
from celeriac.servers.sqlite import SqliteBroker
from celeriac.wire.envelope import Envelope, Route


async def publish(broker: SqliteBroker, queue: str, body: str) -> None:
    await broker.publish(Envelope(body=body.encode()), Route(queue, queue=queue))
    print("published", flush=True)
    await asyncio.Event().wait()


async def hold(broker: SqliteBroker, queue: str) -> None:
    """Take one message and keep it."""
    async with broker.subscribe([queue]) as subscription:
        await subscription.take(1)
        print("held", flush=True)
        await asyncio.Event().wait()


async def hold_and_fork(broker: SqliteBroker, queue: str) -> None:
    """Take one message and keep it, and leave a copy of this process behind."""
    async with broker.subscribe([queue]) as subscription:
        await subscription.take(1)
        if (child := os.fork()) == 0:
            os.closerange(0, 3)
            time.sleep(60)  # noqa: ASYNC251 - this process has no event loop of its own
            os._exit(0)
        print("forked", child, flush=True)
        await asyncio.Event().wait()


async def consume(broker: SqliteBroker, queue: str) -> None:
    async with broker.subscribe([queue]) as subscription:
        print("ready", flush=True)
        while (body := await handle(await subscription.take(1))) != b"stop":
            print("took", body.decode(), flush=True)
    print("done", flush=True)


async def handle(taken: list[Delivery]) -> bytes:
    (delivery,) = taken
    await delivery.receipt.ack()
    assert isinstance(delivery.envelope, Envelope)
    return delivery.envelope.body


async def main(path: str, act: str, *arguments: str) -> None:
    broker = SqliteBroker(path, lease=1.0)
    acts = {"publish": publish, "hold": hold, "hold_and_fork": hold_and_fork, "consume": consume}
    await acts[act](broker, *arguments)
    await broker.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
