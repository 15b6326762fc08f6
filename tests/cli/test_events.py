"""``celeriac events``: its lines beside those of Celery's own dump, and what it chooses."""

import io
import json
import signal
from typing import Any

import pytest
from celery.events.dumper import Dumper

from celeriac.cli.event_lines import Filter, Lines, Wanted
from celeriac.cli.events import BETWEEN_NOTES, Notes
from celeriac.wire.content import Codecs
from celeriac.wire.event import Event, read_events
from tests.cli.project import Project
from tests.wire.captures import FIXTURES, Captured

RECEIVED = 1795342068.25


def captured() -> list[Event]:
    """Every event that was captured, a task's first event first."""
    events: list[Event] = []
    for path in sorted(FIXTURES.glob("event.*.json")):
        told = json.loads(path.read_text())
        one = Captured(path.stem, told["transport"], told["raw"], told["decoded"])
        events += read_events(one.envelope, Codecs())
    return sorted(events, key=lambda event: event.type != "task-received")


def celerys_line(dumper: Dumper, event: Event) -> str:
    dumper.out = io.StringIO()
    dumper.on_event(event.fields | {"local_received": RECEIVED})
    line: str = dumper.out.getvalue()
    return line.removesuffix("\n")


def test_equal_events_give_the_lines_of_celery() -> None:
    lines, dumper = Lines(), Dumper()
    events = [event for event in captured() if event.type != "task-sent"]  # its clock is the reader's
    strange = {"type": "My-Own", "hostname": "a@b", "timestamp": 0.5, "clock": 7, "b": [1], "a": {"x": None}}
    events.append(Event("My-Own", "a@b", 0.5, strange))
    for event in events:
        assert lines.line(event, RECEIVED) == celerys_line(dumper, event)
    assert len(events) > 20


def test_what_only_sends_has_the_readers_clock() -> None:
    lines = Lines()
    [sent] = [event for event in captured() if event.type == "task-sent"][:1]
    assert " clock=0, " in lines.line(sent, RECEIVED)
    heartbeat = Event("worker-heartbeat", "a@b", 0.0, {"type": "worker-heartbeat", "clock": 41})
    assert ": clock=41, " in lines.line(heartbeat, RECEIVED)
    assert " clock=41, " in lines.line(sent, RECEIVED)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"uuid": None, "clock": "late"},
        {"uuid": 7, "name": ["x"], "args": {"a": 1}, "kwargs": None, "clock": 10**40},
        {"uuid": "\x1b[2J", "name": "a\nb", "result": "\x1b]0;owned\x07", "traceback": "one\ntwo\x1b"},
    ],
)
@pytest.mark.parametrize("kind", ["task-received", "task-failed", "worker-online", "-", "\x1b-x"])
def test_any_event_has_a_line_that_acts_on_nothing(kind: str, fields: dict[str, Any]) -> None:
    for timestamp in (0.0, 1e300, float("nan")):
        line = Lines().line(Event(kind, "\x1b@b", timestamp, fields), RECEIVED)
        assert "\x1b" not in line
        assert line.count("\n") == (1 if "traceback" in fields else 0)


def test_no_traceback_forges_the_line_of_another_event() -> None:
    own = Lines().line(Event("task-succeeded", "a@b", 0.0, {"uuid": "1"}), RECEIVED)
    failed = {"uuid": "2", "traceback": f"Traceback:\n  File\nValueError: x\n{own}\n-> Connection lost"}
    shown = Lines().line(Event("task-failed", "a@b", 0.0, failed), RECEIVED).split("\n")
    assert shown[1:] == ["  File", "ValueError: x", f"    {own}", "    -> Connection lost"]


def event(kind: str, uuid: str, **fields: Any) -> Event:
    return Event(kind, "a@b", 0.0, {"type": kind, "hostname": "a@b", "uuid": uuid, **fields})


STREAM = [
    event("task-received", "1", name="shop.pay", queue="fast", root_id="1"),
    event("task-received", "2", name="shop.mail", queue="slow", root_id="1"),
    event("task-received", "3", name="other.pay", queue="fast", root_id="3"),
    event("task-failed", "1", exception="ValueError()"),
    event("task-succeeded", "2", result="1"),
    event("task-retried", "3", exception="ValueError()"),
    Event("worker-heartbeat", "a@b", 0.0, {}),
]


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (Wanted(), [0, 1, 2, 3, 4, 5, 6]),
        (Wanted(types=("task-failed", "heartbeat")), [3, 6]),
        (Wanted(tasks=("shop.*",)), [0, 1, 3, 4]),
        (Wanted(tasks=("shop.mail", "other.pay")), [1, 2, 4, 5]),
        (Wanted(queues=("fast",)), [0, 2, 3, 5]),
        (Wanted(ids=("2",)), [1, 4]),
        (Wanted(failed=True), [3, 5]),
        (Wanted(follow="1"), [0, 1, 3, 4]),
        (Wanted(follow="1", failed=True), [3]),
        (Wanted(types=("received",), queues=("slow",)), [1]),
    ],
)
def test_what_is_chosen(wanted: Wanted, places: list[int]) -> None:
    chosen = Filter(wanted)
    assert [place for place, one in enumerate(STREAM) if chosen.takes(one)] == places


class Noted:
    """Notes at times of the test's own, and what they say."""

    def __init__(self, output: pytest.CaptureFixture[str]) -> None:
        self.now = 5.0
        self._notes = Notes(lambda: self.now)
        self._output = output

    def look(self, fields: dict[str, Any], cuts: int = 0, dropped: int = 0) -> list[str]:
        """What is said when a worker beats."""
        self._notes.look(cuts, dropped, Event("worker-heartbeat", "a@b", 0.0, fields))
        return self._output.readouterr().err.splitlines()

    def later(self, fields: dict[str, Any], cuts: int = 0, dropped: int = 0) -> list[str]:
        """What is said when the next note may be."""
        self.now += BETWEEN_NOTES
        return self.look(fields, cuts, dropped)


def test_notes_come_no_faster_than_one_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    noted, share = Noted(capsys), "-> a@b sends events of this share of its tasks, and of all that fail: "
    assert noted.look({"sampled": 0.5}) == [f"{share}0.5"]
    told = []
    for number in range(1, 100):
        noted.now += BETWEEN_NOTES / 10
        told += noted.look({"sampled": number / 1000})
    assert 8 <= len(told) <= 10
    assert noted.later({"sampled": 0.7}) == [f"{share}0.7"]
    assert noted.later({"sampled": 0.7}) == []
    assert noted.later({}) == [f"{share}1"]


def test_what_waits_longest_is_noted_first_and_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    noted = Noted(capsys)
    assert noted.look({"dropped": 3}) == []  # that was before
    assert "Connection lost" in noted.later({"dropped": 3}, cuts=1, dropped=7)[0]
    assert noted.look({"dropped": 5}, cuts=1, dropped=9) == []
    last = {"dropped": 6}, 1, 9
    assert noted.later(*last) == [
        "-> 9 messages dropped so far: the output is taken more slowly than events come"
    ]
    assert noted.later(*last) == ["-> a@b dropped events while its broker was away: 6 so far"]
    assert noted.later(*last) == []


def test_it_shows_a_worker_and_its_tasks(project: Project) -> None:
    with project.worker("-E", "-n", "ours@here"):
        watching = project.start("events", "-A", project.module, "--task", "shop.boom", "--type", "failed")
        reading = project.start("events", "-A", project.module, "--json")
        try:
            watching.wait_for("starting capture")
            reading.wait_for("worker-heartbeat")
            called = project.start("call", "-A", project.module, "shop.boom")
            called.wait(timeout=60)
            watching.wait_for(": no such thing")
            reading.wait_for("task-failed")
        finally:
            for process in (watching, reading):
                process.send_signal(signal.SIGINT)
    assert [process.wait(timeout=60) for process in (watching, reading)] == [0, 0]
    assert watching.lines[0] == "-> evdump: starting capture..."
    assert watching.lines[1].startswith("ours@here [")
    assert "] task failed: shop.boom(" in watching.lines[1]
    told = [json.loads(line)["type"] for line in reading.lines]
    assert [kind for kind in told if kind.startswith("task-")] == [
        "task-received",
        "task-started",
        "task-failed",
    ]


@pytest.mark.parametrize("flag", ["--camera", "-c", "-F", "--frequency", "--freq", "-r", "--maxrate"])
def test_cameras_are_refused_with_what_to_use(project: Project, flag: str) -> None:
    ended = project.run("events", "-A", project.module, flag, "2")
    assert ended.exit_code == 2
    assert "celeriac has no " in ended.stderr
    assert "\n" not in ended.stderr.strip()
