"""Requests of remote control as captured from Celery, and as nobody should send them."""

import json
from typing import Any

import pytest

from celeriac.errors import ContentRefused, MalformedMessage
from celeriac.wire.content import Codecs
from celeriac.wire.control import Request, read_request, write_answer
from celeriac.wire.envelope import Envelope
from celeriac.wire.frame import unpack
from tests.hostile.values import VALUES

CAPTURED = (
    b'{"body": "eyJtZXRob2QiOiAicGluZyIsICJhcmd1bWVudHMiOiB7fSwgImRlc3RpbmF0aW9uIjogbnVsbCwgInBhdHRlcm'
    b"4iOiBudWxsLCAibWF0Y2hlciI6IG51bGwsICJ0aWNrZXQiOiAiY2M3ZTc0ZGMtNGY5Yi00OTM0LThiMjYtMjJmMWY3MjJlNm"
    b"IyIiwgInJlcGx5X3RvIjogeyJleGNoYW5nZSI6ICJyZXBseS5jZWxlcnkucGlkYm94IiwgInJvdXRpbmdfa2V5IjogIjc3Nj"
    b'RjMDMxLTYzZjQtM2RmZC04MThiLWEwNmQ2N2Q1OWY3NiJ9fQ==", "content-encoding": "utf-8", "content-type"'
    b': "application/json", "headers": {"clock": 1, "expires": 1795342040.1623948}, "properties": {"de'
    b'livery_mode": 2, "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""}, "priority": '
    b'0, "body_encoding": "base64", "delivery_tag": "3b3f37ae-26e5-4779-b062-0834543a7c58"}}'
)
"""``ping`` of Celery 5.7 on Redis."""


def request(**fields: Any) -> Request:
    body = json.dumps({"method": "ping"} | fields).encode()
    return read_request(Envelope(body=body, content_type="application/json"), Codecs())


def test_a_request_of_celery() -> None:
    envelope = unpack(CAPTURED)
    assert isinstance(envelope, Envelope)
    assert read_request(envelope, Codecs()) == Request(
        method="ping",
        arguments={},
        reply_to=("reply.celery.pidbox", "7764c031-63f4-3dfd-818b-a06d67d59f76"),
        ticket="cc7e74dc-4f9b-4934-8b26-22f1f722e6b2",
        clock=1,
        expires=1795342040.1623948,
    )


def test_an_answer_as_celery_writes_it() -> None:
    answer = write_answer(Codecs().encode({"celery@host": {"ok": "pong"}}, "json"), "cc7e", 3)
    assert json.loads(answer.body) == {"celery@host": {"ok": "pong"}}
    assert (answer.content_type, answer.content_encoding) == ("application/json", "utf-8")
    assert (answer.headers, answer.delivery_mode) == ({"ticket": "cc7e", "clock": 3}, 1)


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({}, True),
        ({"destination": ["a@b", "c@d"]}, True),
        ({"destination": ["c@d"]}, False),
        ({"destination": "a@b"}, True),
        ({"destination": {"a@b": 1}}, False),
        ({"destination": [None, 3]}, False),
        ({"destination": []}, True),
        ({"pattern": "a@*", "matcher": "glob"}, True),
        ({"pattern": "x@*", "matcher": "glob"}, False),
        ({"pattern": "a@.$", "matcher": "pcre"}, True),
        ({"pattern": "b", "matcher": "pcre"}, False),
        ({"pattern": "(", "matcher": "pcre"}, False),
        ({"pattern": "(.+)+x", "matcher": "pcre"}, False),
        ({"pattern": r"(?x)((.+) +) +\d", "matcher": "pcre"}, False),
        ({"pattern": "(?#c)(.+(?#c))", "matcher": "pcre"}, False),
        ({"pattern": "(?i-x:A)@", "matcher": "pcre"}, False),
        ({"pattern": ".*.*.*" + "(.|.)" * 12 + "!", "matcher": "pcre"}, False),
        ({"pattern": "a{99999999999999999999}", "matcher": "pcre"}, False),
        ({"pattern": "(?i)A@(b|c)", "matcher": "pcre"}, True),
        ({"pattern": ".*" * 5, "matcher": "pcre"}, False),
        ({"pattern": "a" * 101, "matcher": "glob"}, False),
        ({"pattern": "a@b", "matcher": "other"}, False),
        ({"pattern": "x@*"}, True),
    ],
)
def test_who_is_meant(fields: dict[str, Any], meant: bool) -> None:
    assert request(**fields).is_for("a@b") is meant


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800", "grüße", None, 5])
def test_what_is_no_place_for_an_answer(name: Any) -> None:
    assert request(reply_to={"exchange": "reply", "routing_key": "me"}).reply_to == ("reply", "me")
    assert request(reply_to={"exchange": name, "routing_key": "me"}).reply_to is None
    assert request(reply_to={"exchange": "reply", "routing_key": name}).reply_to is None


def test_fields_of_another_type_are_absent() -> None:
    odd = request(
        reply_to={"exchange": "", "routing_key": "x"}, ticket=5, pattern=3, matcher=[], arguments=None
    )
    assert odd == Request(method="ping", arguments={})


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"7", b"{}", b'{"method": 5}', b'{"method": "ping", "arguments": [1]}']
)
def test_what_is_no_request(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read_request(Envelope(body=body, content_type="application/json"), Codecs())


def test_what_is_not_accepted_is_not_read() -> None:
    with pytest.raises(ContentRefused):
        read_request(Envelope(body=b"x", content_type="application/x-python-serialize"), Codecs())


@pytest.mark.parametrize("value", [json.loads(value) for value in VALUES], ids=lambda value: repr(value)[:20])
def test_a_header_of_any_value_is_read_or_counts_as_absent(value: Any) -> None:
    headers = {"clock": value, "expires": value}
    found = read_request(
        Envelope(body=b'{"method": "ping"}', content_type="application/json", headers=headers), Codecs()
    )
    assert type(found.clock) is int
    assert 0 <= found.clock < 2**53
    assert abs(found.expires) < float("inf")
