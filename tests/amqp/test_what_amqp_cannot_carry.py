"""What AMQP cannot carry is refused by name before anything is sent, and nobody else hears of it."""

import asyncio
import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from celeriac import Celeriac, Context, Retry, chain, group
from celeriac.errors import EncodeError
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.testing.steps import numbered
from celeriac.wire.envelope import Envelope, Route

PATIENCE = 60.0

endless: list[Any] = []
endless.append(endless)

HEADERS = {
    "nan": math.nan,
    "infinite": [1.0, {"deep": -math.inf}],
    "large": "x" * 200_000,
    "huge": 2**64,
    "long": 10**5000,
    "set": {1},
    "endless": endless,
    "lone": "\ud800",
    "early": datetime(1960, 1, 1, tzinfo=UTC),
    "decimal": Decimal("NaN"),
    "CC": "a text",
    "BCC": [1],
    "x-death": "somebody's",
    "x-celeriac-due": 1.0,
}
"""One value of each kind, by a header's name, which the error is to say."""


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said about connections."""
    caplog.set_level(logging.WARNING, "celeriac.rabbitmq")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "celeriac.rabbitmq"]


def app_on(url: str, queue: str, backend: str = "disabled://") -> Celeriac:
    return Celeriac("carry", broker=url, backend=backend, default_queue=queue)


@pytest.mark.parametrize("name", HEADERS)
async def test_a_header_fails_its_own_send_and_no_other(
    rabbit_url: str, queue: str, name: str, said: Callable[[], list[str]]
) -> None:
    async with app_on(rabbit_url, queue) as app:
        sends = [
            app.send_task("t", [n], headers={name: HEADERS[name]} if n == 10 else {"n": n}) for n in range(20)
        ]
        told = await asyncio.gather(*sends, return_exceptions=True)
        assert isinstance(told[10], EncodeError)
        assert name in str(told[10])
        assert len(str(told[10])) < 1000
        assert not [one for one in told if isinstance(one, Exception) and one is not told[10]]
        assert await app.connections().broker.depth(queue) == 19
    assert said() == []


async def test_a_batch_or_a_group_with_one_of_them_is_not_sent_at_all(rabbit_url: str, queue: str) -> None:
    async with app_on(rabbit_url, queue) as app:
        task = app.register("t", _nothing)
        good, guilty = task.call(), task.using(headers={"nan": math.nan}).call()
        with pytest.raises(EncodeError, match="nan"):
            await app.send_many([good] * 600 + [guilty, good])
        with pytest.raises(EncodeError, match="nan"):
            await group([task.s(), task.s().set(headers={"nan": math.nan}), task.s()]).send()
        with pytest.raises(EncodeError, match="routing key"):
            await app.send_many([good, task.using(routing_key="k" * 256).call()])
        assert await app.connections().broker.depth(queue) == 0


async def _nothing() -> None: ...


@pytest.mark.parametrize("values", [{"nan": math.nan}, {"large": "x" * 200_000}], ids=["nan", "large"])
async def test_a_later_step_of_a_chain_fails_the_step_before_it(
    rabbit_url: str, redis_url: str, queue: str, values: dict[str, Any], said: Callable[[], list[str]]
) -> None:
    app = app_on(rabbit_url, queue, redis_url)
    ran: list[Any] = []
    hold = asyncio.Event()

    async def same(value: Any) -> Any:
        ran.append(value)
        return value

    async def bystander() -> str:
        ran.append("bystander")
        await hold.wait()
        return "undisturbed"

    task, waits = app.register("same", same), app.register("bystander", bystander)
    async with app, app.worker(concurrency=5):
        beside = await waits.send()
        result = await chain(task.s(1), task.s().set(headers=values)).send()
        with pytest.raises(EncodeError, match=next(iter(values))):
            await result.wait(timeout=PATIENCE)
        hold.set()
        assert await beside.wait(timeout=PATIENCE) == "undisturbed"
    assert sorted(map(str, ran)) == ["1", "bystander"]
    assert said() == []


async def test_a_retry_fails_the_task_once(
    rabbit_url: str, redis_url: str, queue: str, said: Callable[[], list[str]]
) -> None:
    """Its message came from a Celery client, whose header grew."""
    app = app_on(rabbit_url, queue, redis_url)
    runs: list[int] = []

    async def fails(ctx: Context) -> None:
        runs.append(ctx.attempt)
        ctx.headers["large"] = "x" * 200_000  # type: ignore[index]
        raise ValueError("again")

    task = app.register("fails", fails, retry=Retry(max_attempts=5, backoff=0.01))
    async with app, app.worker():
        with pytest.raises(EncodeError, match="large"):
            await (await task.using(headers={"a": 1}).send()).wait(timeout=PATIENCE)
    assert runs == [1]
    assert said() == []


async def test_names_that_are_too_long_for_amqp_or_for_its_delays(
    rabbit_url: str, queue: str, said: Callable[[], list[str]]
) -> None:
    broker = AmqpBroker(rabbit_url)
    for route in (Route("q" * 256), Route("k", "x" * 256), Route("q" * 256, queue="q" * 256)):
        with pytest.raises(EncodeError, match="255"):
            await broker.publish(numbered(1), route)
    with pytest.raises(EncodeError, match="correlation_id"):
        await broker.publish(Envelope(body=b"", correlation_id="i" * 256), Route(queue))
    # The bits of a delay stand before the name, so the worker keeps what is for later.
    long = f"{queue}{'q' * 255}"[:255]
    await broker.publish(numbered(1), Route(long, queue=long, due=4e9))
    assert await broker.depth(long) == 1
    await broker.purge(long)
    await broker.close()
    assert said() == []
