"""A result that gets into a queue of tasks is never run as one."""

from typing import Any

import pytest

from celeriac.wire import task
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.extended_json import decode_json, encode_json
from celeriac.wire.result import SUCCESS, ResultRecord, decode, encode
from celeriac.wire.task import Malformed, TaskMessage


def read(body: bytes, headers: dict[str, Any] | None = None, kind: str = "application/json") -> Any:
    codecs = Codecs(("json", "msgpack"))
    return task.decode(Envelope(body=body, content_type=kind, headers=headers or {}), codecs)


STAMPS = {"task": "shop.refund", "id": "x", "customer": "ada", "args": [9], "chain": []}


def test_no_stamp_gives_a_result_the_fields_of_a_task():
    record = ResultRecord(
        task_id="t", status=SUCCESS, name="shop.echo", args=[1], kwargs={}, stamps=STAMPS, retries=0
    )
    for serializer, kind in (("json", "application/json"), ("msgpack", "application/x-msgpack")):
        raw = encode(record, Codecs(), serializer=serializer, extended=True)
        assert isinstance(read(raw, kind=kind), Malformed)
    fields = decode_json(encode(record, Codecs(), extended=True))
    assert "task" not in fields
    assert "id" not in fields
    assert decode(encode(record, Codecs(), extended=True), Codecs(), "t").stamps == {"customer": "ada"}


def test_what_celery_lets_a_stamp_make_of_a_result_is_refused():
    meta = {"status": "SUCCESS", "result": 1, "task_id": "t", "children": [], "traceback": None}
    forged = encode_json(meta | {"task": "shop.refund", "id": "x", "args": [9], "kwargs": {}})
    found = read(forged)
    assert isinstance(found, Malformed)
    assert "a result of a task" in found.reason
    assert found.task is None


@pytest.mark.parametrize("name", ["shop.refund", None])
def test_a_message_that_is_marked_as_a_result_is_no_task(name: str | None):
    call = encode_json({"task": name, "id": "x", "args": [], "kwargs": {}})
    assert isinstance(read(call), TaskMessage if name else Malformed)
    assert isinstance(read(call, {"x-celeriac-result": True}), Malformed)
    v2 = {"task": "shop.refund", "id": "x", "x-celeriac-result": True}
    assert isinstance(read(b"[[], {}, null]", v2), Malformed)
