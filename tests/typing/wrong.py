"""Wrong uses, each with what mypy and pyright must say of it.

A complaint that does not come is an unnecessary ignore, and that fails too.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from celeriac import Celeriac, Context, Retry
from celeriac.celery_app.async_task import AsyncTask

app = Celeriac("shop", broker="redis://localhost")


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task(timeout=30)
def fetch(ctx: Context, url: str) -> bytes:
    return url.encode()


@app.task(bind=True)
def bound(self: Context, number: int) -> None:
    pass


async def wrong_arguments() -> None:
    await add.send("two", 3)  # type: ignore[arg-type]
    await add.send(2)  # type: ignore[call-arg]
    await add.send(2, 3, 4)  # type: ignore[call-arg]
    await add.send(2, z=3)  # type: ignore[call-arg]
    await add.using(queue="q").send("two", 3)  # type: ignore[arg-type]
    await fetch.send(5)  # type: ignore[arg-type]
    await bound.send("x")  # type: ignore[arg-type]
    add.delay("two", 3)  # type: ignore[arg-type]
    add.call(1)  # type: ignore[call-arg]
    add(1)  # type: ignore[call-arg,unused-coroutine]


def the_context_is_not_the_callers(ctx: Context) -> None:
    fetch.delay(ctx, "url")  # type: ignore[call-arg,arg-type]


def wrong_options() -> None:
    add.using(que="q")  # type: ignore[call-arg]
    add.using(countdown="10")  # type: ignore[arg-type]
    add.using(protocol=3)  # type: ignore[arg-type]
    app.task(retry=Retry(on=OSError))  # type: ignore[arg-type]
    app.task(delivery="once")  # type: ignore[call-overload]


async def wrong_values() -> None:
    text: str = await (await add.send(1, 2))  # type: ignore[assignment]
    number: int = fetch.delay("u").get()  # type: ignore[assignment]
    print(text, number)


async def forgotten_await() -> None:
    add.send(1, 2)  # type: ignore[unused-coroutine]


async def forgotten_await_of_a_celery_apps_task(task: AsyncTask) -> None:
    task.asend(1, 2)  # type: ignore[unused-coroutine]
    await task.aapply_async(1)  # type: ignore[arg-type]
