"""kombu's frame, both ways."""

import json
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any

import kombu.utils.json
import pytest

from celeriac.errors import EncodeError
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.frame import mark_redelivered, pack, unpack
from tests.wire.captures import all_captured, captured, load

ENVELOPE = Envelope(
    body=b"\x00\xff body",
    content_type="application/x-msgpack",
    content_encoding="binary",
    headers={"task": "t", "n": [1, None, {"é": "☃"}]},
    correlation_id="c",
    reply_to="r",
    priority=3,
    expiration="1500",
    delivery_tag="tag",
    exchange="x",
    routing_key="k",
)


def frame(**parts: Any) -> bytes:
    return json.dumps({"body": "[]"} | parts).encode()


def readable(raw: bytes) -> Envelope:
    envelope = unpack(raw)
    assert isinstance(envelope, Envelope), envelope
    return envelope


def test_an_envelope_comes_back_as_it_was():
    assert unpack(pack(ENVELOPE)) == ENVELOPE


def test_the_frame_has_the_parts_that_kombu_needs():
    written = kombu.utils.json.loads(pack(ENVELOPE))
    (theirs,) = captured("msg.expires-seconds.celery57-v2.redis")
    assert written.keys() == {"body", "content-type", "content-encoding", "headers", "properties"}
    assert written["properties"].keys() == theirs.properties.keys()
    assert b64decode(written["body"]) == ENVELOPE.body


def test_no_expiration_is_written_when_there_is_none():
    assert "expiration" not in json.loads(pack(Envelope(body=b""), delivery_tag="t"))["properties"]


def test_tag_and_route_can_be_given_when_packing():
    envelope = readable(pack(ENVELOPE, delivery_tag="other", route=Route("q")))
    assert (envelope.delivery_tag, envelope.exchange, envelope.routing_key) == ("other", "", "q")


@pytest.mark.parametrize("tag", [None, ""])
def test_a_frame_without_a_delivery_tag_is_not_written(tag: str | None):
    with pytest.raises(EncodeError, match="delivery_tag"):
        pack(Envelope(body=b"", delivery_tag=tag))


def test_a_header_that_cannot_be_written_is_named():
    with pytest.raises(EncodeError, match=r"headers\['h'\]: <class 'object'>"):
        pack(Envelope(body=b"", headers={"h": object()}, delivery_tag="t"))
    with pytest.raises(EncodeError, match="property"):
        pack(Envelope(body=b"", reply_to="\ud800", delivery_tag="t"))


def test_headers_keep_the_types_that_kombu_keeps():
    headers = {"at": datetime(2020, 1, 1, tzinfo=UTC), "big": 2**80, "odd": "\ud800"}
    raw = pack(Envelope(body=b"", headers=headers), delivery_tag="t")
    assert readable(raw).headers == headers
    assert kombu.utils.json.loads(raw)["headers"] == headers


def test_every_captured_frame_keeps_every_property():
    for message in all_captured("msg.*.redis"):
        envelope = message.envelope
        properties = message.properties
        info = properties["delivery_info"]
        assert envelope.delivery_tag == properties["delivery_tag"]
        assert (envelope.exchange, envelope.routing_key) == (info["exchange"], info["routing_key"])
        assert envelope.expiration == properties.get("expiration")
        assert envelope.delivery_mode == properties["delivery_mode"]
        assert envelope.content_encoding == message.decoded["content-encoding"]
        assert not envelope.redelivered


@pytest.mark.parametrize(
    ("parts", "field", "value"),
    [
        ({"properties": None}, "delivery_tag", None),
        ({"properties": {}}, "priority", 0),
        ({"properties": {"priority": None}}, "priority", 0),
        ({"properties": {"priority": 4.0}}, "priority", 4),
        ({"properties": {"priority": "high"}}, "priority", 0),
        ({"properties": {"priority": True}}, "priority", 0),
        ({"properties": {"delivery_info": {"priority": 7}}}, "priority", 7),
        ({"properties": {"priority": 2, "delivery_info": {"priority": 7}}}, "priority", 2),
        ({"properties": {"delivery_info": None}}, "routing_key", ""),
        ({"properties": {"delivery_info": {"exchange": None, "routing_key": "q"}}}, "routing_key", "q"),
        ({"properties": {"delivery_mode": None}}, "delivery_mode", 2),
        ({"properties": {"correlationId": "c"}}, "correlation_id", "c"),
        ({"properties": {"replyTo": "r"}}, "reply_to", "r"),
        ({"properties": {"correlation_id": 5}}, "correlation_id", None),
        ({"properties": {"reply_to": "\ud800"}}, "reply_to", None),
        ({"properties": {"app_id": "shop"}}, "app_id", "shop"),
        ({"properties": {"app_id": 5}}, "app_id", None),
        ({"headers": None}, "headers", {}),
        ({"headers": []}, "headers", {}),
        ({"headers": {"n": float("inf")}}, "headers", {"n": float("inf")}),
        ({"content-type": 5}, "content_type", None),
        ({"body": "é"}, "body", "é".encode()),
        ({"headers": {"redelivered": True}}, "redelivered", True),
        ({"redelivered": True}, "redelivered", True),
        ({"properties": {"delivery_info": {"redelivered": True}}}, "redelivered", True),
        ({"headers": {"redelivered": "no"}}, "redelivered", False),
    ],
)
def test_a_part_that_is_missing_or_odd_is_a_default(parts: dict[str, Any], field: str, value: Any):
    assert getattr(readable(frame(**parts)), field) == value


def test_a_tagged_value_that_nobody_knows_makes_a_frame_unreadable():
    unreadable = unpack(frame(headers={"h": {"__type__": "nope", "__value__": 1}}))
    assert isinstance(unreadable, Unreadable)
    assert "nope" in unreadable.reason


def test_a_frame_nested_too_deeply_is_unreadable():
    raw = b'{"body": "", "headers": {"h": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    assert isinstance(unpack(raw), Unreadable)


def test_restored_messages_of_kombu_are_read_as_redelivered():
    message = json.loads(load("unacked.hset.redis")["raw"])[0]
    (restored,) = (load("unacked.restored.redis")["raw"],)
    assert not readable(json.dumps(message).encode()).redelivered
    assert readable(restored.encode()).redelivered


def test_marking_is_what_kombu_does_when_it_restores():
    message = json.loads(load("unacked.hset.redis")["raw"])[0]
    marked = json.loads(mark_redelivered(json.dumps(message).encode()))
    assert marked.pop("headers") == message.pop("headers") | {"redelivered": True}
    info = marked["properties"].pop("delivery_info")
    assert info == message["properties"].pop("delivery_info") | {"redelivered": True}
    assert marked == message


def test_marking_counts_deliveries_also_where_there_are_no_headers():
    for headers in ({"headers": {}}, {"headers": None}, {}):
        envelope = readable(mark_redelivered(frame(**headers), deliveries=3))
        assert envelope.redelivered
        assert envelope.headers["x-celeriac-deliveries"] == 3


@pytest.mark.parametrize("raw", [b"", b"garbage", b"[]", b"5", b"\xff"])
def test_marking_leaves_alone_what_it_cannot_read(raw: bytes):
    assert mark_redelivered(raw, deliveries=1) is raw


def test_marking_keeps_everything_else():
    odd = {
        "h": float("nan"),
        "big": 2**90,
        "odd": "\ud800",
        "at": {"__type__": "date", "__value__": "2020-01-02"},
    }
    raw = frame(headers=odd, extra=[1, 2.5], properties={"priority": "x", "delivery_info": {}})
    marked = json.loads(mark_redelivered(raw))
    original = json.loads(raw)
    original["headers"]["redelivered"] = True
    original["properties"]["delivery_info"]["redelivered"] = True
    assert json.dumps(marked, sort_keys=True) == json.dumps(original, sort_keys=True)


@pytest.mark.parametrize(
    "part", [b'"extra": ' + b"9" * 5000, b'"extra": "\xff"'], ids=["long number", "no UTF-8"]
)
def test_deliveries_are_counted_of_whatever_can_be_read(part: bytes):
    """Else a message that kills its workers would be delivered without end."""
    raw = frame(headers={"task": "t"})[:-1] + b", " + part + b"}"
    envelope = readable(raw)
    marked = readable(mark_redelivered(raw, deliveries=3))
    assert marked.headers == envelope.headers | {"redelivered": True, "x-celeriac-deliveries": 3}
    assert (marked.body, marked.content_type) == (envelope.body, envelope.content_type)
    odd = readable(mark_redelivered(frame(headers=["no", "object"]), deliveries=2))
    assert odd.headers["x-celeriac-deliveries"] == 2
