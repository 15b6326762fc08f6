"""A process on a PostgreSQL database: takes and prints, until it takes "stop" or is killed."""

import asyncio
import sys

from celeriac.errors import BrokerUnavailable, DeliveryLost
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.url import parse_postgres_url


async def hold(broker: PostgresBroker, queue: str) -> None:
    """Take what is there and keep it."""
    async with broker.subscribe([queue]) as subscription:
        taken = await subscription.take(100)
        print("held", len(taken), flush=True)
        await asyncio.Event().wait()


async def consume(broker: PostgresBroker, queue: str) -> None:
    """Print and acknowledge one message after the other, through every outage."""
    async with broker.subscribe([queue]) as subscription:
        print("ready", flush=True)
        while True:
            try:
                taken = await subscription.take(10)
            except BrokerUnavailable:
                await asyncio.sleep(0.01)
                continue
            for delivery in taken:
                body = delivery.envelope.body.decode()
                print("ran", body, delivery.deliveries, flush=True)
                while True:
                    try:
                        await delivery.receipt.ack()
                        break
                    except BrokerUnavailable:
                        await asyncio.sleep(0.01)
                    except DeliveryLost:
                        print("lost", body, flush=True)
                        break


async def main(url: str, act: str, queue: str) -> None:
    broker = PostgresBroker(Connections(parse_postgres_url(url), "taker", 20.0), lease=1.0)
    await {"hold": hold, "consume": consume}[act](broker, queue)
    await broker.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
