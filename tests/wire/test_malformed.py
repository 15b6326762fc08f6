"""Odd and broken messages become values: each row beside what a real Celery 5.7 worker did with it."""

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac.wire import task
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.frame import unpack
from celeriac.wire.task import Malformed, TaskMessage
from tests.wire.captures import load

ROWS = {row["name"]: row for row in load("malformed.redis")["raw"]}

# What runs (None) and what does not (a part of the reason). Celery's own answer is in the fixture.
EXPECTED: dict[str, str | None] = {
    "v1 minimal task,id,args,kwargs": None,
    "v1 args null": None,  # Celery: FAILURE TypeError
    "v1 kwargs null": None,  # Celery: dropped
    "v1 no args/kwargs keys": None,
    "v1 no args key, kwargs given": None,
    "v1 headers null": None,
    "v1 headers absent": None,
    "v1 no id": "missing required field `id`",  # Celery: runs it, then exits
    "v2 minimal headers, embed {}": None,
    "v2 embed null": None,
    "v2 two-element body": "got 2",  # Celery: exits, again and again
    "v2 args null": None,  # Celery: FAILURE TypeError
    "v2 kwargs null": None,  # Celery: dropped
    "v2 no id header": "missing required field `id`",  # Celery: reconnects for ever
    "v2 header + v1 body (hybrid)": None,
    "v2 timelimit null": None,
    "v2 retries null": None,
    "body_encoding absent, body plain JSON string": None,
    "body_encoding utf-8": None,
    "no correlation_id / reply_to": None,
    "no priority": None,
    "content-type json": "'json' is not accepted",
    "content-type null": "not bytes",  # Celery: exits, again and again
    "content-type application/x-python-serialize": "is not accepted",
    "content-encoding absent": None,
    "eta garbage": "eta is no ISO 8601 time: 'tomorrow'",
    "eta Z suffix past": None,
    "eta nanoseconds": None,
    "expires past Z": None,
    "v1 expires naive past utc true": None,
    "unknown __type__": "unknown __type__ 'nope'",
    "body invalid base64/JSON v2": "not JSON",
    "body invalid JSON v1": "not JSON",
    "headers empty, body list": "no task name",
    "no delivery_info": None,  # Celery: lost
    "no delivery_tag": None,  # Celery: lost
    "no properties": "not JSON",  # nothing says that the body is base64. Celery: lost
    "envelope not JSON": "not JSON",  # Celery: exits, message lost
}

JSON_ONLY = Codecs()


def outcome(raw: bytes) -> TaskMessage | Malformed | Unreadable:
    envelope = unpack(raw)
    return envelope if isinstance(envelope, Unreadable) else task.decode(envelope, JSON_ONLY)


def test_the_table_has_every_row():
    assert EXPECTED.keys() == ROWS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_row_is_a_value(name: str):
    found, reason = outcome(ROWS[name]["raw"].encode()), EXPECTED[name]
    if reason is None:
        assert isinstance(found, TaskMessage), found
        assert found.args in ([2, 3], [])
    else:
        assert isinstance(found, Malformed | Unreadable)
        assert reason in found.reason


def test_the_caller_of_a_malformed_message_can_be_told():
    for name, reason in EXPECTED.items():
        if reason is not None and name != "envelope not JSON":
            found = outcome(ROWS[name]["raw"].encode())
            assert isinstance(found, Malformed)
            # Without properties there is no correlation id, but the id header is there.
            assert found.id is not None
            assert found.id.startswith("00000")


def test_what_is_refused_is_told_from_what_is_broken():
    refused = {name for name in EXPECTED if getattr(outcome(ROWS[name]["raw"].encode()), "refused", False)}
    assert refused == {"content-type json", "content-type application/x-python-serialize"}


# --- fields, one by one -----------------------------------------------------------------------------------------


def v2(body: Any = ([], {}, None), **headers: Any) -> TaskMessage | Malformed:
    return task.decode(
        Envelope(
            body=json.dumps(body).encode(),
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": "t", "id": "i"} | headers,
            correlation_id="c",
            reply_to="r",
        ),
        JSON_ONLY,
    )


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("id", 5),
        ("id", ""),
        ("id", None),
        ("id", "\ud800"),
        ("task", ["t"]),
        ("task", "\udfff"),
        ("group", 1),
        ("group", "\ud800"),
        ("group_index", "first"),
        ("group_index", 1.5),
        ("retries", "many"),
        ("retries", "\ud800"),
        ("retries", True),
        ("retries", 1.5),
        ("retries", float("inf")),
        ("retries", float("nan")),
        ("timelimit", 5),
        ("timelimit", [1]),
        ("timelimit", [1, 2, 3]),
        ("timelimit", ["1", None]),
        ("timelimit", [-1, None]),
        ("timelimit", [float("nan"), None]),
        ("eta", "tomorrow"),
        ("eta", 12345),
        ("eta", ["2020-01-01"]),
        ("expires", "2020-13-01T00:00:00"),
        ("expires", {"a": 1}),
        ("root_id", {}),
        ("parent_id", 0),
        ("shadow", 3),
        ("ignore_result", "yes"),
        ("stamps", []),
        ("stamped_headers", {"a": 1}),
        ("stamped_headers", [1]),
        ("argsrepr", []),
        ("origin", 1),
        ("compression", ["application/x-gzip"]),
        ("compression", {}),
        ("compression", "application/x-gzip"),
        ("replaced_task_nesting", "deep"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(header: str, value: Any):
    found = v2(**{header: value})
    assert isinstance(found, Malformed)
    assert found.reason
    assert (found.id, found.reply_to) == ("c" if header == "id" else "i", "r")


@pytest.mark.parametrize(
    "body",
    [
        [],
        [[], {}],
        [[], {}, {}, {}],
        [{}, [], None],
        ["ab", {}, None],
        [[], [], None],
        [5, {}, None],
        ["\ud800", {}, None],
        [[], {}, []],
        [[], {}, {"callbacks": 5}],
        [[], {}, {"callbacks": ["name"]}],
        [[], {}, {"chain": [None]}],
        [[], {}, {"chord": []}],
        "text",
        5,
        None,
        True,
    ],
)
def test_a_body_of_the_wrong_shape_is_malformed(body: Any):
    found = v2(body)
    assert isinstance(found, Malformed)
    assert "body" in found.reason


@pytest.mark.parametrize("field", ["eta", "expires"])
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-02T03:04:05", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2020-01-02T03:04:05Z", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2020-01-02T03:04:05+0530", datetime(2020, 1, 1, 21, 34, 5, tzinfo=UTC)),
        ("2020-01-02T03:04:05.123456789Z", datetime(2020, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("20200102T030405Z", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2020-01-02", datetime(2020, 1, 2, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_every_form_that_producers_write(field: str, text: str, moment: datetime):
    found = v2(**{field: text})
    assert isinstance(found, TaskMessage)
    assert getattr(found, field) == moment
    assert getattr(found, field).tzinfo is not None


def test_an_empty_time_is_none():
    found = v2(eta="", expires="")
    assert isinstance(found, TaskMessage)
    assert (found.eta, found.expires) == (None, None)


def test_numbers_of_peers_that_have_only_floats_are_read():
    found = v2(retries=2.0, group_index=3.0, timelimit=[60.0, 30])
    assert isinstance(found, TaskMessage)
    assert (found.retries, found.group_index) == (2, 3)
    assert (found.time_limit, found.soft_time_limit) == (60, 30)


def test_one_signature_stands_for_a_list_of_one():
    found = v2([[], {}, {"callbacks": {"task": "then"}}])
    assert isinstance(found, TaskMessage)
    assert found.callbacks == [{"task": "then"}]


def test_headers_win_over_the_body_in_a_hybrid_message():
    found = v2({"args": [1], "task": "other", "retries": 7, "taskset": "g"}, retries=2)
    assert isinstance(found, TaskMessage)
    assert (found.task, found.retries, found.args, found.group) == ("t", 2, [1], "g")


def test_a_count_of_deliveries_is_no_custom_header():
    found = v2(**{"x-celeriac-deliveries": 2, "redelivered": True, "mine": 1})
    assert isinstance(found, TaskMessage)
    assert found.headers == {"mine": 1}


def test_a_frame_that_is_no_object_is_unreadable():
    for raw in (b"", b"null", b"[]", b'"text"', b"\xff", b'{"body": 5}', b"{}", b'{"body": null}'):
        assert isinstance(unpack(raw), Unreadable)


def test_a_body_that_is_not_base64_is_unreadable():
    frame = {"body": "a", "properties": {"body_encoding": "base64"}}
    assert isinstance(unpack(json.dumps(frame).encode()), Unreadable)


def test_a_body_in_another_encoding_is_recoded():
    body = json.dumps([["é"], {}, None], ensure_ascii=False).encode("latin-1")
    frame = {
        "body": b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "latin-1",
        "headers": {"task": "t", "id": "i"},
        "properties": {"body_encoding": "base64"},
    }
    found = outcome(json.dumps(frame).encode())
    assert isinstance(found, TaskMessage)
    assert found.args == ["é"]
