"""What tickers send, on each kind of broker: each slot once, whoever leads, whatever changes."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import msgspec
import pytest

from celeriac import ConfigError
from celeriac.beat.entry import write_entry
from celeriac.beat.places import places_of
from celeriac.client.periodic import CELERYS_HEADER, ENTRY_HEADER, SLOT_HEADER
from tests.beat.conftest import make_place
from tests.beat.places import PATIENCE, everybody_leads, ticking


def declaring(place, shift=0.0, *, every=0.1, **given):
    app = place.app(shift)
    app.schedule("report", "shop.report", every, **given)
    return app


def grid(found, every):
    """The slots are each there once, and lie on one grid without a gap."""
    assert set(found.values()) == {1}
    slots = sorted(slot for _, slot in found)
    steps = [round((later - slot) / every, 3) for slot, later in pairwise(slots)]
    assert set(steps) <= {1.0}
    return slots


async def test_an_entry_is_ticked_on_its_grid_with_its_arguments_and_options(place):
    app = declaring(place, args=(1,), kwargs={"b": datetime(2026, 1, 1, tzinfo=UTC)}, options={"expires": 60})
    async with app, ticking(app):
        grid(await place.until(app, 3), 0.1)
        broker = app.connections().broker
        (first, *_) = await broker.peek(place.queue)
        (listed,) = await app.schedules.list()
        assert first.headers["id"] == first.correlation_id
        assert first.headers[CELERYS_HEADER] is True
        assert first.headers[ENTRY_HEADER] == f"{place.name}:report"
        assert first.headers["expires"] is not None
        body = app.codecs.decode(first.body, first.content_type, first.content_encoding, None)
        assert (listed.name, listed.task, listed.declared) == ("report", "shop.report", True)
        assert body[:2] == [[1], {"b": datetime(2026, 1, 1, tzinfo=UTC)}]


async def test_two_who_both_lead_tick_each_slot_once(shared, monkeypatch):
    apps = [declaring(shared, every=0.05) for _ in range(2)]
    async with apps[0], apps[1]:
        boards = [one.board.leases for one in (apps[0].connections().broker, apps[0].connections().backend)]
        with everybody_leads(monkeypatch, [leases for leases in boards if leases is not None]):
            async with ticking(apps[0]), ticking(apps[1]):
                found = await shared.until(apps[0], 15)
    # On RabbitMQ the message goes before the slot, so there may be copies, of which workers run one.
    if "rabbit" not in apps[0].broker_url and "amqp" not in apps[0].broker_url:
        grid(found, 0.05)
    assert len(found) >= 8


async def test_another_takes_over_where_the_leader_stopped(shared):
    first, second = declaring(shared, every=0.1), declaring(shared, every=0.1)
    async with first, second:
        async with ticking(first):
            await shared.until(first, 2)
            later = ticking(second)
            await later.__aenter__()
        before = sum((await shared.slots(second)).values())
        found = await shared.until(second, before + 5)
        await later.__aexit__(None, None, None)
        grid(found, 0.1)


@pytest.mark.parametrize(
    ("kind", "catch_up", "window", "expected"),
    [
        ("sqlite", "one", None, 1),
        ("redis", "one", None, 1),
        ("postgres", "one", None, 1),
        ("rabbitmq+redis", "one", None, 1),
        ("redis", "all", None, 10),
        ("sqlite", "none", None, 0),
        ("sqlite", "all", 150, 2),
    ],
)
async def test_downtime_is_caught_up_as_the_entry_says(
    kind, catch_up, window, expected, request, unique, tmp_path
):
    shared = make_place(kind, request, unique, tmp_path)
    now = declaring(shared, every=60.0, catch_up=catch_up, window=window)
    async with now:
        # As it was kept by a process of ten minutes ago.
        entry, began = now.schedules.declared["report"].entry, time.time() - 630
        kept = msgspec.structs.replace(entry, declared=began, seen=began, since=began)
        board = places_of(now.connections()).board
        await board.sets.add(f"beat.{shared.name}", {"entries": [write_entry(kept)]}, 600)
        now.schedule("beep", "shop.beep", 0.05)
        async with ticking(now):
            await shared.until(now, 2, "shop.beep")
        found = [slot for task, slot in await shared.slots(now) if task == "shop.report"]
        assert len(found) == expected


@pytest.mark.parametrize("kind", ["redis", "postgres", "rabbitmq+redis"])
async def test_the_servers_clock_names_the_slots_where_the_clocks_of_processes_differ(
    kind, request, unique, tmp_path
):
    place = make_place(kind, request, unique, tmp_path)
    ahead, behind = declaring(place, 100.0), declaring(place, -100.0)
    async with ahead, behind:
        async with ticking(ahead):
            await place.until(ahead, 2)
            later = ticking(behind)
            await later.__aenter__()
        # The one whose clock is behind goes on where the other stopped, as soon as that does.
        count = len(await place.slots(behind))
        await behind.schedules.pause("report")
        await behind.schedules.resume("report")
        found = await place.until(behind, count + 3)
        await later.__aexit__(None, None, None)
    assert set(found.values()) == {1}
    slots = sorted(slot for _, slot in found)
    assert time.time() - 30 < slots[0] < slots[-1] <= time.time()


async def tenants(place, app):
    """The slots of the tenant's task."""
    return {slot for task, slot in await place.slots(app) if task == "shop.tenant"}


async def test_entries_that_change_while_they_are_ticked(shared):
    app, other = declaring(shared), shared.app()
    async with app, other, ticking(app):
        await other.schedules.add("tenant", "shop.tenant", 0.1, args=(7,))
        await shared.until(app, 2, "shop.tenant")
        await other.schedules.pause("tenant")
        async with asyncio.timeout(PATIENCE):
            before = None
            while before != (paused_at := await tenants(shared, app)):
                before = paused_at
                await asyncio.sleep(0.3)
        resumed_at = time.time()
        await other.schedules.resume("tenant")
        await shared.until(app, len(paused_at) + 2, "shop.tenant")
        # Nothing of the pause is caught up.
        assert min(await tenants(shared, app) - paused_at) > max(resumed_at - 0.1, *paused_at)
        assert await other.schedules.remove("tenant")
        assert not await other.schedules.remove("tenant")
        found = await shared.slots(app)
        assert set(found.values()) == {1}
        grid({key: 1 for key in found if key[0] == "shop.report"}, 0.1)


async def test_random_changes_double_nothing_leave_nothing_out_and_hold_within_a_second(
    request, unique, tmp_path
):
    place, random = make_place("redis", request, unique, tmp_path), Random(15)
    app, other = declaring(place), place.app()
    state, ticked = dict.fromkeys("abc", "gone"), {name: [] for name in "abc"}

    async def change(name, to):
        if to == "ticked":
            resumes = state[name] == "paused"
            await (
                other.schedules.resume(name) if resumes else other.schedules.add(name, f"shop.{name}", 0.05)
            )
            ticked[name].append([time.time(), None])
        else:
            if state[name] == "ticked":
                ticked[name][-1][1] = time.time() + 1
            await (other.schedules.pause(name) if to == "paused" else other.schedules.remove(name))
        state[name] = to

    async with app, other, ticking(app):
        for _ in range(20):
            name = random.choice("abc")
            choices = {"gone": ["ticked"], "ticked": ["paused", "gone"], "paused": ["ticked", "gone"]}
            await change(name, random.choice(choices[state[name]]))
            await asyncio.sleep(random.random() * 0.1)
        for name in "abc":
            if state[name] != "ticked":
                await change(name, "ticked")
        await asyncio.sleep(1.5)
        now, found = time.time(), await place.slots(app)
    grid({key: times for key, times in found.items() if key[0] == "shop.report"}, 0.1)
    for name, spans in ticked.items():
        slots = {slot: times for (task, slot), times in found.items() if task == f"shop.{name}"}
        assert set(slots.values()) == {1}
        assert all(any(since - 0.05 <= slot <= (until or now) for since, until in spans) for slot in slots)
        assert max(slots) > now - 1.2


async def test_a_rolling_deploy_ticks_each_slot_once_by_the_new_rule(shared):
    """A message tells by its arguments which rule sent it; when the ticker learns of a new rule is its own affair."""
    old, new = declaring(shared, every=0.04), declaring(shared, every=0.1, args=("new",))
    async with old, new, ticking(old):
        await shared.until(old, 3)
        async with ticking(new), asyncio.timeout(PATIENCE):
            while len(by_new := await slots_with(old, shared.queue, "new")) < 4:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
            found = await shared.slots(old)
    assert set(found.values()) == {1}
    since = sorted(slot for _, slot in found if slot >= by_new[0])
    assert since[: len(by_new)] == by_new
    assert {round(later - slot, 2) for slot, later in pairwise(since)} == {0.1}


async def slots_with(app, queue, argument):
    """Return the slots whose messages have this argument."""
    waiting = await app.connections().broker.peek(queue, 5000)
    return sorted(one.headers[SLOT_HEADER] for one in waiting if argument in one.headers["argsrepr"])


async def test_trigger_and_backfill_send_besides_the_slots(shared):
    app = declaring(shared, every=3600.0)
    async with app:
        await app.schedules.keep()
        result = await app.schedules.trigger("report")
        assert result.id
        end = datetime.now(UTC) - timedelta(minutes=1)
        since_to = end - timedelta(hours=5), end
        assert await app.schedules.backfill("report", *since_to) == 5
        again = await app.schedules.backfill("report", *since_to)
        found = await shared.slots(app)
        # What RabbitMQ got twice are copies, of which workers run one.
        assert again == (5 if app.connections().broker.may_repeat else 0)
        assert len(found) == 6
        with pytest.raises(ConfigError, match="no periodic task 'never'"):
            await app.schedules.trigger("never")
        with pytest.raises(ConfigError, match="more than 10000 slots"):
            await app.schedules.backfill("report", end - timedelta(days=600), end)


async def test_what_cannot_be_sent_harms_no_other(stored):
    app = declaring(stored)
    app.schedule("bad", "shop.bad", 0.1, options={"compression": "gzip"})
    bad = app.schedules.declared["bad"]
    app.schedules.declared["bad"] = type(bad)(
        type(bad.entry)(name="bad", task="shop.bad", schedule=bad.entry.schedule, arguments="{broken")
    )
    async with app, ticking(app):
        found = await stored.until(app, 3)
        assert {task for task, _ in found} == {"shop.report"}


FORGED = (
    '{"name":"a","task":"shop.a","schedule":{"type":"interval","every":0}}',
    '{"name":"b","task":"shop.b","schedule":{"type":"interval","every":1e-12}}',
    '{"name":"c","task":"shop.c","schedule":{"type":"crontab","minute":"99"}}',
    '{"name":"d","task":"shop.d","schedule":{"type":"crontab","tz":"No/Where"}}',
    '{"name":"e","task":"shop.e","schedule":{"type":"solar","event":"moonrise","lat":0,"lon":0}}',
    '{"name":"f","task":"shop.f","schedule":{"type":"interval","every":1},"start":1e308}',
    '{"name":"g","task":"shop.g","schedule":{"type":"once","at":-1e308}}',
    "nonsense",
)


async def test_what_others_put_on_the_board_harms_no_entry(stored):
    app = declaring(stored)
    async with app:
        await app.connections().board.sets.add(f"beat.{stored.name}", {"entries": FORGED}, 600)
        async with ticking(app):
            found = await stored.until(app, 3)
            assert {task for task, _ in found} == {"shop.report"}
            listed = {one.name: one for one in await app.schedules.list()}
        assert "report" in listed
        assert "99" in listed["c"].oddities[0]
        assert all(one.next is None for name, one in listed.items() if name != "report")


async def test_arguments_that_are_made_at_each_tick(request, unique, tmp_path):
    place = make_place("memory", request, unique, tmp_path)
    app, made = place.app(), []

    def arguments():
        made.append(len(made))
        return [made[-1]], {}

    app.schedules.declare("lazy", "shop.lazy", 0.1, arguments)
    async with app, ticking(app):
        await place.until(app, 2)
        bodies = [
            app.codecs.decode(one.body, one.content_type, one.content_encoding, None)[0]
            for one in (await app.connections().broker.peek(place.queue))[:2]
        ]
        assert bodies == [[0], [1]]
