"""Whatever can be written is read as it was; kombu reads the same."""

from typing import Any

import kombu.utils.json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac.errors import EncodeError
from celeriac.wire import result, task
from celeriac.wire.envelope import Envelope
from celeriac.wire.extended_json import TAG_KEYS, decode_json, encode_json
from celeriac.wire.failure import describe, rebuild
from celeriac.wire.frame import mark_redelivered, pack, unpack
from celeriac.wire.preview import LIMIT, preview
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage
from tests.wire import strategies
from tests.wire.captures import EVERYTHING

# No limits on time: a busy machine is no failure.
thorough = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
briefly = settings(thorough, max_examples=50)


CARRIED_BY_PROTOCOL_1 = [
    *("id", "task", "args", "kwargs", "retries", "eta", "expires", "group", "group_index"),
    *("time_limit", "soft_time_limit", "callbacks", "errbacks", "chord"),
    *("headers", "correlation_id", "reply_to", "priority", "protocol"),
]


def again(message: TaskMessage, **options: Any) -> Any:
    """The message after it was framed and read."""
    envelope = unpack(pack(task.encode(message, EVERYTHING, **options), delivery_tag="tag"))
    assert isinstance(envelope, Envelope)
    return task.decode(envelope, EVERYTHING)


@thorough
@given(strategies.values)
def test_values_through_extended_json(value: Any):
    raw = encode_json(value)
    assert decode_json(raw) == value
    assert kombu.utils.json.loads(raw) == value
    assert decode_json(kombu.utils.json.dumps(value)) == value


@thorough
@given(
    st.recursive(strategies.scalars, lambda inner: st.dictionaries(st.sampled_from(sorted(TAG_KEYS)), inner))
)
def test_a_dict_of_the_tags_keys_is_never_read_as_something_else(value: Any):
    try:
        raw = encode_json(value)
    except EncodeError:
        return
    assert decode_json(raw) == value


@briefly
@given(strategies.messages, st.sampled_from([None, "gzip", "bzip2"]))
def test_messages_of_protocol_2(message: TaskMessage, compression: str | None):
    found = again(message, compression=compression)
    assert isinstance(found, TaskMessage), found
    expected = {name: getattr(message, name) for name in TaskMessage.__struct_fields__}
    expected["compression"] = found.compression
    assert found == TaskMessage(**expected)
    assert (found.compression is None) == (compression is None)


@briefly
@given(strategies.messages)
def test_messages_of_protocol_1_keep_what_it_can_carry(message: TaskMessage):
    fields = {name: getattr(message, name) for name in TaskMessage.__struct_fields__}
    sent = TaskMessage(**(fields | {"protocol": 1, "chain": ()}))
    found = again(sent)
    assert isinstance(found, TaskMessage), found
    for name in CARRIED_BY_PROTOCOL_1:
        assert getattr(found, name) == getattr(sent, name)


@thorough
@given(st.lists(strategies.plain_values, max_size=4), st.sampled_from(["msgpack", "yaml", "pickle"]))
def test_messages_in_other_serializers(args: list[Any], serializer: str):
    message = TaskMessage(id="i", task="t", args=args)
    try:
        found = again(message, serializer=serializer)
    except EncodeError:
        return  # YAML and msgpack have no form for some text
    assert isinstance(found, TaskMessage), found
    assert found.args == args


@thorough
@given(strategies.records | strategies.failed_records)
def test_results(record: ResultRecord):
    raw = result.encode(record, EVERYTHING)
    assert result.decode(raw, EVERYTHING, record.task_id) == record


@thorough
@given(st.sampled_from([ValueError, KeyError, RuntimeError]), st.lists(strategies.values, max_size=3))
def test_exceptions(kind: type[Exception], args: list[Any]):
    error = rebuild(describe(kind(*args)))
    assert type(error) is kind
    assert error.args == tuple(args)


@briefly
@given(strategies.messages, st.integers(0, 9))
def test_marking_changes_nothing_but_the_mark(message: TaskMessage, deliveries: int):
    raw = pack(task.encode(message, EVERYTHING), delivery_tag="tag")
    before, after = unpack(raw), unpack(mark_redelivered(raw, deliveries))
    assert isinstance(before, Envelope)
    assert isinstance(after, Envelope)
    assert after.redelivered
    assert after.headers == dict(before.headers) | {"redelivered": True, "x-celeriac-deliveries": deliveries}
    assert task.decode(after, EVERYTHING) == task.decode(before, EVERYTHING)


@thorough
@given(strategies.values)
def test_previews_are_short(value: Any):
    text = preview(value)
    assert text == repr(value) or (len(text) == LIMIT and text.endswith("..."))
