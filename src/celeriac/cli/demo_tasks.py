"""The tasks of ``celeriac demo``; written as a user would write them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from datetime import UTC, datetime, timedelta
from math import isqrt

from celeriac import Celeriac, Context, Retry

# The demo gives its URLs to its worker; the default file would depend on the present directory.
app = Celeriac(
    "demo", None if "CELERIAC_BROKER" in os.environ else "memory://", default_queue="celeriac-demo"
)


@app.task
async def add(x: int, y: int) -> int:
    """Run on the event loop."""
    return x + y


@app.task
async def download(page: int) -> str:
    """Wait for something, as tasks that talk to the network do; others run meanwhile."""
    await asyncio.sleep(0.05)
    return f"page {page}"


@app.task
def checksum(text: str) -> str:
    """Run in a thread: a plain function may block."""
    time.sleep(0.01)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@app.task
def count_primes(below: int) -> int:
    """Keep a processor busy."""
    return sum(all(n % d for d in range(2, isqrt(n) + 1)) for n in range(2, below))


@app.task(retry=Retry(on=(ConnectionError,), max_attempts=5, backoff=0.2))
async def fetch(ctx: Context, shop: str) -> str:
    """Fail twice, then succeed: the policy runs it again."""
    if ctx.attempt < 3:
        raise ConnectionError(f"{shop} hung up")
    return f"{shop} answered at attempt {ctx.attempt}"


@app.task
def divide(x: int, y: int) -> float:
    """Fail for good when ``y`` is 0; the caller gets the exception."""
    return x / y


@app.task
async def remind(ctx: Context) -> str:
    """Tell how late it runs."""
    late = datetime.now(UTC) - ctx.eta if ctx.eta is not None else timedelta()
    return f"{late.total_seconds() * 1000:.0f} ms after it was due"


@app.task
async def export(ctx: Context, rows: int) -> str:
    """Report how far it is."""
    for row in range(0, rows, 25):
        ctx.progress(row, rows, f"row {row}")
        await asyncio.sleep(0.05)
    ctx.progress(rows, rows, "written")
    return f"{rows} rows"
