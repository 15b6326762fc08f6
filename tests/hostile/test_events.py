"""Whatever stands in an event, who counts, keeps and shows events goes on with those that are sound."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from celeriac.cli.event_lines import Filter as EventFilter
from celeriac.cli.event_lines import Lines, Wanted
from celeriac.errors import ConfigError
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.fleet import MOST_NODES, FleetCounts
from celeriac.monitor.filters import Filter
from celeriac.monitor.fleet import MOST, Fleet
from celeriac.monitor.folding import LONGEST_TEXT
from celeriac.monitor.history import DEFAULT, History
from celeriac.monitor.masking import Mask
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.event import Event, read_events
from tests.hostile.values import VALUES

NOW = 1_800_000_000.0
TYPES = (
    *("task-sent", "task-received", "task-started", "task-succeeded", "task-failed", "task-retried"),
    *("task-revoked", "task-rejected", "task-progress", "worker-online", "worker-heartbeat"),
    *("worker-offline", "worker-elect", "unheard-of"),
)
FIELDS = (
    *("type", "hostname", "timestamp", "uuid", "name", "args", "kwargs", "queue", "routing_key", "eta"),
    *("expires", "root_id", "parent_id", "retries", "runtime", "result", "exception", "traceback", "freq"),
    *("active", "processed", "loadavg", "lag", "sampled", "pid", "sw_ident", "sw_ver", "sw_sys", "progress"),
    *("total", "message", "clock", "utcoffset", "signum", "terminated", "expired", "requeue"),
)


def read(*bodies: str) -> list[Event]:
    found: list[Event] = []
    for body in bodies:
        found += read_events(Envelope(body=body.encode(), content_type="application/json"), Codecs())
    return found


def sound(kind: str, **fields: object) -> Event:
    told = {"type": kind, "hostname": "celery@host", "timestamp": NOW, "uuid": "sound", "name": "shop.pay"}
    (event,) = read(json.dumps({**told, "queue": "pay", **fields}))
    return event


def forged() -> Iterable[Event]:
    """Every type of event with every value in the place of every field."""
    for kind in TYPES:
        told = {"type": kind, "hostname": "celery@host", "timestamp": NOW, "uuid": f"forged {kind}"}
        start = json.dumps({**told, "name": "n", "exception": "E()", "traceback": "t"})[:-1]
        for field in FIELDS:
            yield from read(*(f'{start}, "{field}": {value}}}' for value in VALUES))


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(forged())


def test_what_is_read_is_finite_and_can_be_written(events: list[Event]):
    assert len(events) > 10_000
    for event in events:
        assert 0 <= event.timestamp < 1e11
        event.type.encode()
        event.node.encode()
        for name, value in event.fields.items():
            name.encode()
            if isinstance(value, str):
                value.encode()
            elif isinstance(value, int | float):
                assert abs(float(value)) < float("inf")


def test_metrics_count_on_and_can_be_scraped(events: list[Event]):
    counts = FleetCounts(lambda: NOW)
    for event in [*events, sound("task-sent"), sound("task-received"), sound("task-succeeded", runtime=0.5)]:
        counts.take(event)
    text = Exposition().fleet_text(counts.snapshots(), None)[0].decode()
    assert 'celery_task_succeeded_total{hostname="host",name="shop.pay",queue_name="pay"} 1.0' in text
    assert 'celery_task_runtime_sum{hostname="host",name="shop.pay",queue_name="pay"} 0.5' in text
    assert "nan" not in text.lower()


def test_answers_of_workers_are_counted_as_far_as_they_are_sound():
    counts, values = FleetCounts(lambda: NOW), [json.loads(value) for value in VALUES]
    for number, value in enumerate(values):
        queues = {
            f"{number}@a": value,
            f"{number}@b": [value],
            f"{number}@c": [{"name": value}, {"name": "pay"}],
        }
        for stats in (value, {"pool": value}, {"pool": {"processes": value}}):
            counts.note_workers(queues, dict.fromkeys(queues, stats))
    text = Exposition().fleet_text(counts.snapshots(), None)[0].decode()
    assert f'celery_active_worker_count{{queue_name="pay"}} {float(len(values))}' in text


def test_forged_names_take_little_memory():
    counts, fleet = FleetCounts(lambda: NOW), Fleet()
    for number in range(MOST + 1):
        event = sound(
            "worker-heartbeat", hostname=f"n{number}@host", freq=1e18, active=2**60, loadavg=[1.0] * 9
        )
        counts.take(event)
        fleet.hear(event.type, event.node, event.fields, NOW + number / 1e6)
    (host,) = counts.snapshots()
    assert len(host.workers) == MOST_NODES + 1
    assert host.active == 0
    workers = fleet.workers(NOW)
    assert len(workers) == MOST
    assert "n0@host" not in {row.node for row in workers}
    assert {(row.freq, len(row.loadavg), row.active) for row in workers} == {(2.0, 3, None)}
    assert not fleet.alive(NOW + 3600)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_the_history_keeps_what_is_sound_beside_it(
    events: list[Event], tmp_path: Path, store: str, request: pytest.FixtureRequest
):
    place = request.getfixturevalue("postgres_url") if store == "postgres" else tmp_path / "history.db"
    history = History(place, mask=Mask(), now=lambda: NOW)
    await history.open()
    try:
        ended = sound("task-failed", exception="ValueError()", args="(1,)")
        long = "".join(chr(number % 50_000 + 0x100) for number in range(0, 7 * 10**6, 997))
        names = dict.fromkeys(("name", "queue", "root_id", "parent_id", "hostname"), long)
        others = [sound("task-failed", **{"uuid": id, **names}) for id in ("named", long)]
        await history.take([event.fields for event in [*events, *others, ended]])
        row = await history.task("sound")
        assert row is not None
        assert (row.state, row.error, row.args) == ("FAILURE", "ValueError()", "(1,)")
        shown = (await history.tasks(Filter(), limit=10_000)).tasks
        assert max(len(text) for row in shown for text in (row.args, row.result, row.error)) <= LONGEST_TEXT
        assert {row.retries for row in shown} <= {0, 1, 2}
        assert await history.groups()
        assert await history.minutes(0)
        assert await history.sweep() >= 0
    finally:
        await history.close()


def test_the_fleet_is_shown_as_far_as_it_is_sound(events: list[Event]):
    fleet = Fleet()
    for event in [*events, sound("worker-heartbeat", active=3, freq=2.0)]:
        if event.type.startswith("worker-"):
            fleet.hear(event.type, event.node, event.fields, NOW)
    (row,) = [row for row in fleet.alive(NOW) if row.node == "celery@host"]
    assert (row.active, row.freq) == (3, 2.0)
    assert not fleet.alive(NOW + 7300)


def test_every_event_has_its_line(events: list[Event]):
    lines, chosen = Lines(), EventFilter(Wanted(queues=("pay",), follow="sound"))
    for event in events:
        line = lines.line(event, NOW)
        assert "\x1b" not in line
        assert "\u202e" not in line
        chosen.takes(event)
    assert chosen.takes(sound("task-received", root_id="sound"))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "password" * 3000,
            "password-" * 3000,
            "-" * 20_000 + "token",
            "token" + " " * 20_000,
            "a" * 50_000,
        ),
        *("password='" + "\\" * 20_000, "password=" * 2000, "'token' : " * 2000, "secret\n" * 5000),
    ],
    ids=lambda text: text[:12],
)
def test_no_text_holds_up_what_hides_secrets(text: str):
    began = time.process_time()
    Mask()(text)
    assert time.process_time() - began < 2


def test_the_default_file_of_the_history_is_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(ConfigError, match="symbolic link"):
        History(DEFAULT, mask=Mask())
    History(tmp_path / DEFAULT, mask=Mask())
