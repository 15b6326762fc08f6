"""A frame that is read in one typed pass says the same as one that is read part by part."""

import json
import pickle
import random
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from celeriac.wire import frame, task
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.frame import earlier_deliveries, pack, unpack
from celeriac.wire.task import TaskMessage
from celeriac.wire.task_headers import TaskHeaders
from tests.wire.captures import EVERYTHING, all_captured, captured

ODD = [None, True, 0, -1, 7, 2.0, 1.5, 10**30, 1e300, float("nan"), "", "text", "é", "\ud800", "2030-01-02T03:04:05",
       [], [1], [None, None], [3, 2.5], ["a"], {}, {"a": 1}, {"__type__": "date", "__value__": "2020-01-02"},
       {"__type__": "nope", "__value__": 1}, "__type__", "base64", "application/json", "AAAA", "W10="]  # fmt: skip
NAMES = ["id", "task", "eta", "expires", "group", "taskset", "retries", "timelimit", "stamps", "compression",
         "redelivered", "x-celeriac-deliveries", "x-celeriac-sent", "x-celeriac-result", "traceparent"]  # fmt: skip


def usual() -> bytes:
    (message,) = captured("msg.kwargs.celery57-v2.redis")
    raw: bytes = message.raw.encode()
    return raw


def read(raw: bytes) -> tuple[Envelope | Unreadable, Any]:
    envelope = unpack(raw)
    return envelope, None if isinstance(envelope, Unreadable) else task.decode(envelope, EVERYTHING)


def read_part_by_part(raw: bytes) -> tuple[Envelope | Unreadable, Any]:
    with patch.object(frame, "_LAST", b"in no frame"):
        return read(raw)


def said(value: Any) -> str:
    return repr(float(value) if type(value) is int else value)


def assert_same(raw: bytes) -> bool:
    """Whether the frame was read in one pass."""
    (envelope, message), (other, meant) = read(raw), read_part_by_part(raw)
    assert repr(envelope) == repr(other), raw
    assert repr(message) == repr(meant), raw
    if isinstance(envelope, Envelope):
        assert earlier_deliveries(envelope) == earlier_deliveries(other)
        known, plain = unpack(raw).headers, dict(other.headers)  # of which nobody has read anything
        assert [said(known.get(name)) for name in NAMES] == [said(plain.get(name)) for name in NAMES], raw
    return isinstance(envelope, Envelope) and isinstance(envelope.headers, TaskHeaders)


def mutants(raw: str, chance: random.Random) -> Iterator[bytes]:
    for _ in range(12):
        whole = json.loads(raw)
        for _ in range(chance.choice((1, 1, 2))):
            parts = [whole, whole.get("headers"), whole.get("properties")]
            part = chance.choice([one for one in parts if isinstance(one, dict)])
            name = chance.choice([*part, *NAMES])
            if chance.random() < 0.2:
                part.pop(name, None)
            else:
                part[name] = chance.choice(ODD)
        yield json.dumps(whole, separators=chance.choice((None, (",", ":")))).encode()
    text = bytearray(raw.encode())
    for _ in range(6):
        text[chance.randrange(len(text))] = chance.choice(b'"\\{}[],:0aZ\xff \x00')
        yield bytes(text)


def test_every_captured_frame_says_the_same():
    assert sum(assert_same(message.raw.encode()) for message in all_captured("msg.*.redis")) > 40


def test_mutated_frames_say_the_same():
    chance = random.Random(5)
    for message in all_captured("msg.*.redis"):
        for raw in mutants(message.raw, chance):
            assert_same(raw)


def test_headers_are_a_mapping_as_a_dict_is():
    envelope = unpack(usual())
    assert isinstance(envelope, Envelope)
    headers = envelope.headers
    plain = json.loads(usual())["headers"]
    assert isinstance(headers, TaskHeaders)
    assert headers == plain
    assert plain == headers
    assert (dict(headers), list(headers), len(headers)) == (plain, list(plain), len(plain))
    assert (list(headers.items()), list(headers.values())) == (list(plain.items()), list(plain.values()))
    assert (headers["task"], headers.get("task"), headers.get("mine", 5)) == (plain["task"], plain["task"], 5)
    assert "task" in headers
    assert "mine" not in headers
    assert 5 not in headers
    assert repr(headers) == repr(plain)
    other = pickle.loads(pickle.dumps(headers))
    assert type(other) is dict
    assert other == plain


def test_what_this_library_sends_is_read_in_one_pass_but_for_custom_headers():
    codecs = Codecs()
    for headers, expected in (({}, True), ({"mine": 1}, False)):
        message = TaskMessage(
            "i", "t", args=[1], headers=headers, args_repr="", kwargs_repr="", content_type="application/json"
        )
        raw = pack(task.encode(message, codecs, sent=12.5), delivery_tag="d")
        envelope = unpack(raw)
        assert isinstance(envelope, Envelope)
        assert isinstance(envelope.headers, TaskHeaders) is expected
        assert envelope.headers["x-celeriac-sent"] == 12.5
        found = task.decode(envelope, codecs)
        assert isinstance(found, TaskMessage)
        assert (found.args, found.headers) == ([1], headers)


def test_a_frame_that_is_read_in_one_pass_is_written_as_it_was() -> None:
    """A message that is parked, moved or kept as failed is read and written again."""
    envelope = unpack(usual())
    assert isinstance(envelope, Envelope)
    assert isinstance(envelope.headers, TaskHeaders)
    again = pack(envelope)
    assert json.loads(again)["headers"] == json.loads(usual())["headers"]
    assert read(again)[1] == read(usual())[1]
