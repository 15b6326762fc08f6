"""Numbers and times that users give are refused where they are given, everywhere in the same way."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from celeriac import Celeriac, ConfigError, Context, GroupResult, Retry, Settings, chain, from_dict, group
from celeriac.errors import MalformedMessage
from celeriac.routing import SendOptions
from celeriac.servers.rabbitmq import AmqpBroker, QueueOptions
from celeriac.servers.redis.broker import RedisBroker
from celeriac.servers.redis.results import RedisBackend
from celeriac.servers.sqlite import SqliteBroker
from celeriac.wire.content import Codecs
from celeriac.wire.task import TaskMessage

NAN, INFINITE = float("nan"), float("inf")
NO_NUMBERS = [timedelta(seconds=5), "5", NAN, INFINITE, -INFINITE, True, 10**400, 1e300]
NO_AMOUNTS = [*NO_NUMBERS[:-1], -1]
NO_SECONDS = [*NO_NUMBERS, 0, -1]
NO_DELAYS = [*NO_NUMBERS, -1]
NO_COUNTS = [*NO_NUMBERS, 0, -1, 1.5]
WEST, EAST = timezone(-timedelta(hours=12)), timezone(timedelta(hours=14))
NO_MOMENTS = [
    "2030-01-01T00:00:00+00:00",
    timedelta(1),
    5,
    datetime(2030, 1, 1),
    datetime.max.replace(tzinfo=UTC),
    datetime(9999, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=WEST),
    datetime.min.replace(tzinfo=EAST),
]
NO_EXPIRIES = [*NO_NUMBERS, *(each for each in NO_MOMENTS if each != 5)]
NO_PRIORITIES = [*NO_NUMBERS, -1, 10, 1.5]

OPTIONS = {
    "countdown": NO_DELAYS,
    "eta": NO_MOMENTS,
    "expires": NO_EXPIRIES,
    "time_limit": NO_SECONDS,
    "soft_time_limit": NO_SECONDS,
    "priority": NO_PRIORITIES,
    "protocol": [*NO_COUNTS, 3],
}


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("quantities", broker="memory://")


def nothing(*args: int) -> None:
    pass


async def async_nothing() -> None:
    pass


SENDERS: dict[str, Callable[[Celeriac, dict[str, Any]], Any]] = {
    "using": lambda app, given: app.tasks["t"].using(**given),
    "apply_async": lambda app, given: app.tasks["t"].apply_async((), **given),
    "call": lambda app, given: app.call("t", **given),
    "send_task": lambda app, given: app.send_task("elsewhere", **given).send(None),
    "signature": lambda app, given: app.tasks["t"].si().set(**given),
    "signature by name": lambda app, given: app.signature("elsewhere").set(**given),
    "chain": lambda app, given: chain(app.signature("a"), app.signature("b")).set(**given),
    "group": lambda app, given: group(app.signature("a")).set(**given),
    "clone": lambda app, given: app.signature("a").clone(**given),
    "options": lambda app, given: SendOptions(**given),
    "route": lambda app, given: Celeriac("r", broker="memory://", routes={"*": given}),
}


def given_to(app: Celeriac, sender: str, name: str, value: Any) -> Any:
    return SENDERS[sender](app, {name: value})


def refused(name: str, value: Any, give: Callable[[str, Any], Any]) -> None:
    with pytest.raises(ConfigError) as error:
        give(name, value)
    assert name in str(error.value)
    assert f"{value!r:.50}" in str(error.value)
    assert "give" in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("sender", SENDERS)
def test_options_of_sending(app: Celeriac, sender: str):
    app.register("t", nothing)
    for name, values in OPTIONS.items():
        for value in values:
            refused(name, value, partial(given_to, app, sender))


def test_options_of_a_task(app: Celeriac):
    for name, values in {
        "timeout": NO_SECONDS,
        "soft_timeout": NO_SECONDS,
        "expires": NO_SECONDS,
        "max_deliveries": NO_COUNTS,
        "priority": NO_PRIORITIES,
    }.items():
        for value in values:
            refused(name, value, lambda name, value: app.task(**{name: value})(nothing))


def test_retry_policies():
    for name, values in {
        "max_attempts": NO_COUNTS,
        "backoff": NO_DELAYS,
        "factor": [*NO_AMOUNTS, 0.5, 0],
        "cap": NO_DELAYS,
        "jitter": [0.5, 1, "no"],
    }.items():
        for value in values:
            refused(name, value, lambda name, value: Retry(**{name: value}))


def test_settings():
    seconds = (
        "result_expires",
        "publish_timeout",
        "lease",
        "visibility_timeout",
        "time_limit",
        "soft_time_limit",
    )
    for name in seconds:
        for value in NO_SECONDS:
            refused(name, value, lambda name, value: Settings(**{name: value}))
    for value in NO_COUNTS:
        refused("max_deliveries", value, lambda name, value: Settings(max_deliveries=value))
    for value in NO_SECONDS:
        refused("lease", value, lambda name, value: Celeriac("a", broker="memory://").connect_to(lease=value))


def test_workers(app: Celeriac):
    for name in ("concurrency", "max_tasks_per_child", "max_memory_per_child"):
        for value in NO_COUNTS:
            refused(name, value, lambda name, value: app.worker(**{name: value}))
    for value in NO_DELAYS:
        refused("grace", value, lambda name, value: app.worker(grace=value))


def test_inside_a_task():
    context = Context(TaskMessage(id="id", task="t"))
    for value in NO_DELAYS:
        refused("countdown", value, lambda name, value: context.retry(countdown=value))
    for value in NO_AMOUNTS:
        refused("done", value, lambda name, value: context.progress(value))
        refused("total", value, lambda name, value: context.progress(1, value))
    for value in NO_COUNTS:
        refused("max_attempts", value, lambda name, value: context.retry(max_attempts=value))
    refused("cause", "text", lambda name, value: context.retry(cause="text"))  # type: ignore[arg-type]
    refused(
        "countdown",
        NAN,
        lambda name, value: context.replace(
            Celeriac("a", broker="memory://").signature("b").set(countdown=NAN)
        ),
    )


def test_periodic_tasks(app: Celeriac):
    task = app.register("t", nothing)
    for name, values in {
        "window": NO_SECONDS[1:],
        "overlap_for": NO_SECONDS[1:],
        "jitter": NO_DELAYS[1:],
        "start": NO_MOMENTS,
        "end": NO_MOMENTS,
    }.items():
        for value in values:
            refused(name, value, lambda name, value: app.schedule("s", task, 5, **{name: value}))
    for name in ("countdown", "expires", "priority", "time_limit", "soft_time_limit"):
        for value in OPTIONS[name]:
            refused(name, value, lambda name, value: app.schedule("s", task, 5, options={name: value}))
    for value in NO_SECONDS[1:]:
        with pytest.raises(ConfigError):
            app.schedule("s", task, value)


def test_what_a_periodic_task_does_not_take_is_not_dropped(app: Celeriac):
    task = app.register("t", nothing)
    declare: list[Callable[..., Any]] = [
        lambda **given: app.schedule("s", task, 5, **given),
        lambda **given: app.periodic(5, **given)(task),
    ]
    for given in declare:
        for name, value in {"expires": 3, "queue": "slow", "ignore_result": True}.items():
            with pytest.raises(ConfigError, match=rf"{name} is an option of sending: write options="):
                given(**{name: value})
        with pytest.raises(ConfigError, match="unknown option 'jiter': known are args, kwargs"):
            given(jiter=1)
    assert app.schedules.declared == {}


def test_chunks(app: Celeriac):
    task = app.register("t", nothing)
    for value in NO_COUNTS:
        refused("size", value, lambda name, value: task.chunks([(1,)], value))


async def test_waiting_and_revoking(app: Celeriac):
    result = app.result("unknown")
    for value in NO_NUMBERS:
        for waiting in (result, GroupResult("g", [result], result.store)):
            with pytest.raises(ConfigError, match="timeout="):
                await waiting.wait(timeout=value)
        with pytest.raises(ConfigError, match="keep="):
            await app.cancel("unknown", keep=value)


async def test_a_task_that_asks_for_an_impossible_retry_fails_by_that(app: Celeriac):
    @app.task
    async def again(ctx: Context, countdown: Any) -> None:
        ctx.retry(countdown=countdown)

    async with app.worker():
        with pytest.raises(ConfigError, match=r"retry\(countdown=-5\): give seconds, 0 or more"):
            await (await again.send(-5)).wait(60)


async def test_what_is_possible_passes_and_arrives(app: Celeriac):
    task = app.register("t", async_nothing)
    soon = datetime.now(WEST)
    async with app.worker():
        for given in (
            {"countdown": 0},
            {"countdown": 0.0, "expires": 5, "priority": 0, "time_limit": 1e8},
            {"eta": soon, "expires": soon + timedelta(days=9999)},
            {"eta": datetime(1970, 1, 1, tzinfo=EAST), "expires": datetime(9998, 12, 1, tzinfo=UTC)},
        ):
            assert await (await task.using(**given).send()).wait(60) is None  # type: ignore[arg-type]
    far = await task.using(eta=datetime(9998, 12, 1, tzinfo=WEST)).send()
    await task.using(countdown=9e10).send()
    assert len(await app.connections().broker.schedule.list()) == 2
    assert not (await far.info()).ready


@pytest.mark.parametrize("wrong", [NAN, INFINITE, 1e300, 10**400, "5"])
@pytest.mark.parametrize("name", ["countdown", "expires"])
def test_signatures_of_other_programs(name: str, wrong: Any):
    with pytest.raises(MalformedMessage):
        from_dict({"task": "t", "args": [], "kwargs": {}, "options": {name: wrong}})


def test_brokers_and_stores():
    for value in NO_SECONDS:
        for name in ("lease", "visibility_timeout", "timeout"):
            refused(name, value, lambda name, value: RedisBroker("redis://", **{name: value}))
        refused("timeout", value, lambda name, value: AmqpBroker("amqp://", timeout=value))
        refused("lease", value, lambda name, value: SqliteBroker("tasks.db", lease=value))
    for value in NO_DELAYS:
        refused("expires", value, lambda name, value: RedisBackend("redis://", Codecs(), expires=value))
    for value in [*NO_COUNTS, 256]:
        refused("max_priority", value, lambda name, value: QueueOptions(max_priority=value))
