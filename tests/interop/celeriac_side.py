"""The same tasks as a celeriac application has them; coroutines and plain functions, with and without a context."""

import json
import time
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from celeriac import Celeriac, Context, Signature, from_dict, group
from tests.interop.errors import OutOfStock
from tests.interop.record import record, wait_for_record


async def echo(*args, **kwargs):
    return [args, kwargs]


async def add(x: int, y: int) -> int:
    return x + y


def none() -> None:
    return None


def kinds(moment: datetime, amount: Decimal, uid: UUID) -> dict[str, Any]:
    assert isinstance(moment, datetime)
    assert isinstance(amount, Decimal)
    assert isinstance(uid, UUID)
    return {"moment": moment, "amount": amount, "uid": uid}


def fail(text: str) -> None:
    raise ValueError(text)


async def run_out(item: str | int, wanted: int) -> None:
    raise OutOfStock(item, wanted)


async def retry_twice(ctx: Context) -> list[Any]:
    if ctx.retries < 2:
        ctx.retry(countdown=0)
    return [ctx.id, ctx.retries]


def give_up(ctx: Context, url: str, key: str) -> None:
    record(url, key, str(ctx.retries))
    ctx.retry(cause=OutOfStock("patience", ctx.retries), countdown=0, max_attempts=2)


async def clock() -> float:
    return time.time()


async def seen(ctx: Context) -> dict[str, Any]:
    return {
        "id": ctx.id,
        "root_id": ctx.root_id,
        "parent_id": ctx.parent_id,
        "queue": ctx.queue,
        "headers": dict(ctx.headers),
    }


def note(url: str, key: str, value: str) -> str:
    record(url, key, value)
    return value


def note_value(value: Any, *, url: str, key: str) -> None:
    record(url, key, json.dumps(value))


def note_failure(failed_id: str, *, url: str, key: str) -> None:
    record(url, key, failed_id)


def note_error(request: Any, error: Any, traceback: Any, *, url: str, key: str) -> None:
    record(url, key, f"{request.id} {error!r}")


def report(ctx: Context, url: str, key: str) -> str:
    ctx.progress(1, 2)
    wait_for_record(url, key, timeout=60)
    return "done"


def note_run(ctx: Context, url: str, key: str) -> None:
    record(url, key, f"{ctx.id} celeriac")


async def total(numbers: list[int]) -> int:
    return sum(numbers)


def same(value: Any) -> Any:
    return value


async def become(ctx: Context, x: int, y: int) -> int:
    ctx.replace(named("add", ctx, x, y))


async def become_group(ctx: Context, x: int) -> list[int]:
    ctx.replace(group(named("add", ctx, x, n) for n in (1, 2)))


async def become_this(ctx: Context, value: Any, workflow: dict[str, Any]) -> Any:
    ctx.replace(from_dict(workflow))


def retry_then(ctx: Context, value: int) -> int:
    if ctx.retries < 1:
        ctx.retry(countdown=0)
    return value


async def work(*given: Any) -> list[Any]:
    return list(given)


def named(task: str, ctx: Context, *args: Any) -> Signature[Any]:
    """A call of another of these tasks, on the queue that the present one came from."""
    return Signature(f"interop.{task}", args, options={"queue": ctx.queue})


TASKS = (
    *(echo, add, none, kinds, fail, run_out, retry_twice, give_up),
    *(clock, seen, note, note_value, note_failure, note_error, note_run, report),
    *(total, same, become, become_group, become_this, retry_then, work),
)


def make_app(url: str, backend: str | None = None) -> Celeriac:
    """An application with every task of this file; ``url`` is its broker, and its backend if no other is given."""
    app = Celeriac("interop", broker=url, backend=backend or url)
    for task in TASKS:
        app.register(f"interop.{task.__name__}", task)
    return app
