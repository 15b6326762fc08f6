"""Events as captured from Celery, as ours are, and as nobody should send them."""

import json
from typing import Any

import msgspec
import pytest

from celeriac.wire import event as events
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.event import Event, EventWriter, cut_traceback, key_of, read_events
from tests.wire.captures import FIXTURES, Captured

OF_KIND = {
    "task-received": events.TaskReceived,
    "task-started": events.TaskStarted,
    "task-succeeded": events.TaskSucceeded,
    "task-failed": events.TaskFailed,
    "task-retried": events.TaskRetried,
    "task-revoked": events.TaskRevoked,
    "task-rejected": events.TaskRejected,
    "task-sent": events.TaskSent,
    "worker-online": events.WorkerOnline,
    "worker-heartbeat": events.WorkerHeartbeat,
    "worker-offline": events.WorkerOffline,
}
OURS_ALONE = {"queue", "exchange", "routing_key"}


def captured(stem: str) -> list[Captured]:
    found = []
    for path in sorted(FIXTURES.glob(f"{stem}.json")):
        told = json.loads(path.read_text())
        found.append(Captured(path.stem, told["transport"], told["raw"], told["decoded"]))
    assert found
    return found


@pytest.mark.parametrize("one", captured("event.*"), ids=lambda one: one.name)
def test_an_event_of_celery_is_read(one: Captured) -> None:
    body = one.decoded["body"]
    expected = body if isinstance(body, list) else [body]
    read = read_events(one.envelope, Codecs())
    assert [event.fields for event in read] == expected
    assert [event.type for event in read] == [fields["type"] for fields in expected]
    assert {event.node for event in read} == {one.decoded["headers"]["hostname"]}


@pytest.mark.parametrize(
    ("kind", "transport"),
    [
        (kind, transport)
        for kind in OF_KIND
        for transport in ("redis", "amqp")
        if (FIXTURES / f"event.{kind}.{transport}.json").exists()
    ],
)
def test_ours_have_the_fields_of_celerys(kind: str, transport: str) -> None:
    (one,) = captured(f"event.{kind}.{transport}")
    (theirs,) = [event for event in read_events(one.envelope, Codecs()) if event.type == kind][:1]
    known = set(OF_KIND[kind].__struct_fields__)
    given = {name: value for name, value in theirs.fields.items() if name in known}
    if kind == "task-received":
        given |= dict.fromkeys(OURS_ALONE, "celery")
    ours = msgspec.convert(given, OF_KIND[kind], strict=True)  # the types, too
    writer = EventWriter(theirs.node, theirs.fields["pid"])
    envelope = writer.message([ours]) if kind.startswith("task") else writer.single(ours)
    (read,) = read_events(envelope, Codecs())
    assert {name: value for name, value in read.fields.items() if name not in OURS_ALONE} == {
        name: value for name, value in theirs.fields.items() if name not in OURS_ALONE
    }
    assert (envelope.content_type, envelope.content_encoding) == ("application/json", "utf-8")
    assert (envelope.headers, envelope.delivery_mode) == ({"hostname": theirs.node}, 1)


def test_the_offset_of_local_time_is_told_only_where_it_moves_no_timestamp() -> None:
    started = events.TaskStarted(1, 2.0, "id")
    assert json.loads(EventWriter("a@b", 1).single(started).body)["utcoffset"] == 0.0
    assert "utcoffset" not in json.loads(EventWriter("a@b", 1, -9.0).single(started).body)


@pytest.mark.parametrize("text", ["\ud800", "é\u2028", "\x00", '"\\'])
def test_any_text_is_written(text: str) -> None:
    writer = EventWriter(f"{text}@b", 1)
    event = events.TaskFailed(1, 2.0, text, text, text, text, text, text)
    written = json.loads(writer.single(event).body)
    assert (written["uuid"], written["exception"], written["traceback"]) == (text, text, text)


def test_a_text_that_looks_like_an_event_is_a_text() -> None:
    text = '{"type":"task-failed"}'
    events_ = [events.TaskSucceeded(1, 2.0, text, text, 0.5), events.TaskStarted(2, 2.0, "\ud800")]
    written = json.loads(EventWriter("a@b", 1).message(events_).body)
    assert [(event["hostname"], event["pid"]) for event in written] == [("a@b", 1)] * 2
    assert (written[0]["uuid"], written[0]["result"], written[1]["uuid"]) == (text, text, "\ud800")


def test_numbers_of_any_size_are_written() -> None:
    event = events.TaskProgress(1, 2.0, "id", 10**30, 10**31, None)
    assert json.loads(EventWriter("a@b", 1).single(event).body)["progress"] == 10**30


def test_what_is_not_told_has_no_field() -> None:
    failed = events.TaskFailed(1, 2.0, "id", "ValueError()")
    heartbeat = events.WorkerHeartbeat(1, 2.0, 2.0, 0, 0, [0, 0, 0], "celeriac", "1", "Linux")
    writer = EventWriter("a@b", 1)
    assert not {"name", "args", "kwargs", "traceback"} & set(json.loads(writer.single(failed).body))
    assert not {"sampled", "dropped", "lag"} & set(json.loads(writer.single(heartbeat).body))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"7", b'"text"', b"{}", b"[[]]", b'{"type": 1}', b'{"type": ""}', b'{"type": "task-x"}',
        b'{"type": "task-x", "hostname": null}', b"\xff", b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_event_is_left_out(body: bytes) -> None:
    assert read_events(Envelope(body=body, content_type="application/json"), Codecs()) == []


def test_good_events_of_a_bad_list_are_read() -> None:
    body: list[Any] = [None, {"type": "task-x", "hostname": "a@b", "timestamp": "soon"}, 3]
    envelope = Envelope(body=json.dumps(body).encode(), content_type="application/json")
    assert read_events(envelope, Codecs()) == [Event("task-x", "a@b", 0.0, body[1])]
    assert read_events(Unreadable(b"", "no"), Codecs()) == []
    refused = Envelope(body=b"x", content_type="application/x-python-serialize")
    assert read_events(refused, Codecs()) == []


def test_the_end_of_a_traceback_is_kept() -> None:
    assert cut_traceback("short") == "short"
    cut = cut_traceback("a" * 100_000 + "ValueError: last")
    assert len(cut) == events.LONGEST_TRACEBACK
    assert cut.endswith("ValueError: last")


def test_a_key_is_the_type_with_dots() -> None:
    assert key_of("worker-heartbeat") == "worker.heartbeat"
