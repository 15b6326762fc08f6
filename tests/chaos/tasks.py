"""The tasks as celeriac workers run them. The environment says where: CHAOS_URL, CHAOS_LEDGER."""

import asyncio
import os
import time

from celeriac import Celeriac, Context
from tests.chaos.ledger import Ledger
from tests.chaos.plan import LEASE, NAP, QUEUE, VISIBILITY_TIMEOUT


def make_app(url: str, results: str) -> Celeriac:
    """An app without tasks, as the sender has it."""
    return Celeriac(
        "chaos",
        broker=_named(url),
        backend=_named(results),
        default_queue=QUEUE,
        lease=LEASE,
        visibility_timeout=VISIBILITY_TIMEOUT,
        max_deliveries=1000,
    )


def _named(url: str) -> str:
    """Return the URL with a name for its connections, by which they are cut."""
    return f"{url}?client_name=celeriac" if url.startswith("redis") else url


URL = os.environ.get("CHAOS_URL", "redis://localhost")
app = make_app(URL, os.environ.get("CHAOS_RESULTS", URL))
ledger = Ledger.of_environment()


@app.task(name="chaos.quick")
async def quick(ctx: Context) -> None:
    ledger.begin(ctx.id, ctx.retries, ctx.redelivered)
    ledger.end(ctx.id, ctx.retries)


@app.task(name="chaos.slow")
async def slow(ctx: Context) -> None:
    ledger.begin(ctx.id, ctx.retries, ctx.redelivered)
    await asyncio.sleep(NAP)
    ledger.end(ctx.id, ctx.retries)


@app.task(name="chaos.thread")
def thread(ctx: Context) -> None:
    ledger.begin(ctx.id, ctx.retries, ctx.redelivered)
    time.sleep(NAP)
    ledger.end(ctx.id, ctx.retries)


@app.task(name="chaos.retry")
async def retry(ctx: Context) -> None:
    ledger.begin(ctx.id, ctx.retries, ctx.redelivered)
    ledger.end(ctx.id, ctx.retries)
    if ctx.retries == 0:
        ctx.retry(countdown=NAP)
