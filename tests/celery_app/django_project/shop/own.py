"""An app of celeriac's in a Django project."""

import asyncio
import os
import threading

import django

django.setup()

from django.db import connection  # noqa: E402 - Django is to be set up first

from celeriac import Celeriac  # noqa: E402
from shop.models import Order  # noqa: E402

app = Celeriac("own", broker="memory://", backend="memory://")


@app.task
def look() -> list:
    """Tell where this runs, whether its database connection was closed before, and leave it open."""
    was_closed = connection.connection is None
    Order.objects.count()
    return [os.getpid(), threading.get_ident(), was_closed]


@app.task
def break_connection() -> None:
    """Leave a connection that looks open and is not."""
    Order.objects.count()
    connection.connection.close()


@app.task
def pay(order_id: int) -> str:
    """Pay an order, which may be known to this transaction alone."""
    order = Order.objects.get(pk=order_id)
    order.paid = True
    order.save()
    return order.name


async def looks(pool: str) -> list:
    """What the tasks see in a worker of that pool."""
    async with app, app.worker(pool=pool, concurrency=1):
        found = [await (await look.send()).wait(timeout=60) for _ in range(2)]
        await (await break_connection.send()).wait(timeout=60)
        return [*found, await (await look.send()).wait(timeout=60)]


def main() -> list:
    """What they see in each pool."""
    return [asyncio.run(looks(pool)) for pool in ("threads", "processes")]
