"""Cron monitors of Sentry: one check-in for each slot."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk

from celeriac import Celeriac, Context, Retry
from celeriac.client.send_listeners import Tick
from celeriac.integrations.sentry import instrument
from celeriac.integrations.sentry_monitors import Monitors, end_run
from celeriac.schedule.crontab import crontab
from celeriac.schedule.interval import interval
from celeriac.schedule.slots import Schedule
from celeriac.schedule.solar import Solar
from tests.integrations.sentry_transport import Transport

WAIT = 60.0


@pytest.fixture
def sent() -> Iterator[Transport]:
    transport = Transport()
    sentry_sdk.init(
        "http://key@localhost/1",
        transport=transport,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    yield transport
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def tick(schedule: Schedule, entry: str = "report", run: str = "0123-4567") -> Tick:
    return Tick(entry, "shop.report", run, 1000.0, schedule)


async def test_each_slot_has_one_check_in_that_its_run_ends(sent: Transport, queue: str):
    app = Celeriac("shop", "memory://", "memory://", default_queue=queue)
    for _ in range(2):
        instrument(app, monitor_beat_tasks=True, exclude_beat_tasks=["^quiet"])

    @app.task(name="well")
    async def well(ctx: Context) -> None:
        assert ctx.headers["headers"]["sentry-monitor-slug"] == "report"

    @app.task(name="bad", retry=Retry(max_attempts=2, backoff=0.01, on=(OSError,)))
    async def bad(ctx: Context) -> None:
        raise OSError if ctx.attempt == 1 else ValueError

    begin = interval(60)
    for name, task in (("report", "well"), ("failing", "bad"), ("quiet", "bad")):
        app.schedule(name, task, begin)
    async with app:
        await app.schedules.keep()
        now = int(app.clock.now())
        ticking = app.schedules._ticking()
        entries = {name: await app.schedules._entry(name) for name in ("report", "failing", "quiet")}
        for entry in entries.values():
            for _ in range(2):  # the second finds the slot ticked
                await ticking.tick(entry, f"shop:{entry.name}", now)
        async with app.worker():
            await sent.until(
                lambda: len(sent.transactions("bad")) == 4 and len(sent.transactions("well")) == 1
            )
    assert [one["status"] for one in sent.check_ins("report")] == ["in_progress", "ok"]
    assert [one["status"] for one in sent.check_ins("failing")] == ["in_progress", "error"]
    assert sent.check_ins("quiet") == []
    for name in ("report", "failing"):
        first, last = sent.check_ins(name)
        assert first["check_in_id"] == last["check_in_id"]
        assert re.fullmatch("[0-9a-f]{32}", first["check_in_id"])
        assert last["monitor_config"] == first["monitor_config"]
        assert first["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "minute"}
        assert 0 <= last["duration"] < WAIT
    runs = sent.transactions("well") + sent.transactions("bad")
    assert (
        len({one["contexts"]["trace"]["trace_id"] for one in runs}) == 3
    )  # a trace for each run of an entry


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (crontab("*/5", "3", day_of_week="1-5"), {"type": "crontab", "value": "*/5 3 * * 1-5"}),
        (interval(7200), {"type": "interval", "value": 2, "unit": "hour"}),
        (interval(90 * 60), {"type": "interval", "value": 90, "unit": "minute"}),
        (interval(14 * 86400), {"type": "interval", "value": 2, "unit": "week"}),
    ],
)
def test_schedules_in_the_words_of_sentry(sent: Transport, schedule: Schedule, said: dict[str, Any]):
    headers = Monitors().headers(tick(schedule))
    assert headers is not None
    assert headers["sentry-monitor-config"] == {"schedule": said, "timezone": "UTC"}
    assert headers["headers"]["sentry-monitor-check-in-id"] == "01234567"


@pytest.mark.parametrize("schedule", [interval(30), interval(90), Solar("sunset", 1.0, 1.0)])
def test_a_schedule_that_sentry_does_not_know_has_no_monitor(
    sent: Transport, schedule: Schedule, caplog: pytest.LogCaptureFixture
):
    monitors = Monitors()
    assert [monitors.headers(tick(schedule)) for _ in range(2)] == [None, None]
    monitors.begin(tick(schedule))
    assert sent.check_ins("report") == []
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "began", [None, "soon", "nan", "-inf", 10**400, [], "1e308"], ids=lambda value: repr(value)[:9]
)
def test_headers_that_anybody_may_have_written_do_no_harm(sent: Transport, began: object):
    end_run({"sentry-monitor-slug": 7, "sentry-monitor-check-in-id": "x"}, "SUCCESS")
    end_run({"headers": "none"}, "SUCCESS")
    end_run({"headers": {"sentry-monitor-slug": "a", "sentry-monitor-check-in-id": "x"}}, "RETRY")
    assert sent.check_ins("a") == []
    mine = {
        "sentry-monitor-slug": "a",
        "sentry-monitor-check-in-id": "x",
        "sentry-monitor-config": "none",
        "sentry-monitor-start-timestamp-s": began,
    }
    end_run(mine, "SUCCESS")
    assert [one.get("duration") for one in sent.check_ins("a")] == [None]
