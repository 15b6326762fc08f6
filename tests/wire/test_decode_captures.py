"""Every captured message of every producer is read as what its producer meant."""

import json
from datetime import UTC, datetime
from typing import Any

import kombu.utils.json
import pytest

from celeriac.wire import task
from celeriac.wire.task import PROTOCOL_HEADERS, TaskMessage
from tests.wire.captures import EVERYTHING, Captured, all_captured, captured, names

PRODUCERS = ["celery57-v2", "celery57-v1", "celery44-v2", "celery31-v1", "gocelery-v1", "gopher-*", "node-*"]


def decoded(message: Captured) -> TaskMessage:
    result = task.decode(message.envelope, EVERYTHING)
    assert isinstance(result, TaskMessage), result
    return result


def moment(text: str | None) -> datetime | None:
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def meant(message: Captured) -> TaskMessage:
    """The task message, read field by field from the capture's own decoded form."""
    headers, properties = message.decoded["headers"] or {}, message.properties
    body = kombu.utils.json.loads(json.dumps(message.decoded["body"]))
    if "task" in headers:
        protocol, fields, (args, kwargs, embed) = 2, headers, body
    else:
        protocol, fields, args, kwargs, embed = 1, body, body.get("args"), body.get("kwargs"), body
    hard, soft = fields.get("timelimit") or (None, None)
    info = properties.get("delivery_info") or {}
    return TaskMessage(
        id=fields["id"],
        task=fields["task"],
        args=args or [],
        kwargs=kwargs or {},
        retries=fields.get("retries") or 0,
        eta=moment(fields.get("eta")),
        expires=moment(fields.get("expires")),
        group=fields.get("taskset") or fields.get("group"),
        group_index=fields.get("group_index"),
        root_id=fields.get("root_id"),
        parent_id=fields.get("parent_id"),
        time_limit=hard,
        soft_time_limit=soft,
        ignore_result=fields.get("ignore_result"),
        shadow=fields.get("shadow"),
        callbacks=embed.get("callbacks") or (),
        errbacks=embed.get("errbacks") or (),
        chain=embed.get("chain") or (),
        chord=embed.get("chord"),
        replaced_task_nesting=fields.get("replaced_task_nesting") or 0,
        stamped_headers=fields.get("stamped_headers"),
        stamps=fields.get("stamps") or {},
        origin=fields.get("origin"),
        lang=fields.get("lang"),
        args_repr=fields.get("argsrepr"),
        kwargs_repr=fields.get("kwargsrepr"),
        headers={name: value for name, value in headers.items() if name not in PROTOCOL_HEADERS},
        correlation_id=properties.get("correlation_id") or properties.get("correlationId"),
        reply_to=properties.get("reply_to") or properties.get("replyTo"),
        priority=properties.get("priority") or info.get("priority") or 0,
        content_type=message.content_type,
        compression=headers.get("compression"),
        protocol=protocol,
    )


def fields(message: TaskMessage) -> dict[str, Any]:
    return {name: getattr(message, name) for name in TaskMessage.__struct_fields__}


@pytest.mark.parametrize("name", names("msg.*") + names("flow.*"))
def test_a_captured_message_is_read_as_it_was_meant(name: str):
    for message in captured(name):
        ours, theirs = fields(decoded(message)), fields(meant(message))
        for field in ("correlation_id", "reply_to"):  # celery.node writes "" for none
            ours[field], theirs[field] = ours[field] or None, theirs[field] or None
        for field in ("expiration", "delivery_mode"):  # the transport's, which no producer's record has
            assert ours.pop(field) == getattr(message.envelope, field)
            del theirs[field]
        ours["args"] = list(ours["args"])  # a pickled tuple stays one
        assert ours == theirs


@pytest.mark.parametrize("producer", PRODUCERS)
def test_every_producer_is_covered_on_every_transport_it_was_captured_on(producer: str):
    transports = {message.transport for message in all_captured(f"msg.*.{producer}.*")}
    assert transports == ({"redis"} if producer.startswith("gopher") else {"redis", "amqp"})


def test_a_priority_that_celery_3_keeps_in_the_delivery_info_is_read():
    (message,) = captured("msg.priority.celery31-v1.redis")
    assert decoded(message).priority == 5


def test_a_time_limit_is_hard_first():
    (message,) = captured("msg.time-limit.celery57-v2.redis")
    assert (decoded(message).time_limit, decoded(message).soft_time_limit) == (60, 30.5)


def test_a_naive_eta_is_utc():
    (message,) = captured("msg.eta-naive.celery57-v2.redis")
    assert decoded(message).eta == datetime(2036, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def test_custom_headers_are_told_from_those_of_the_protocol():
    for name in ("msg.headers.celery57-v2.redis", "msg.headers.celery57-v1.redis"):
        (message,) = captured(name)
        assert decoded(message).headers == {"my_header": "v", "n": 1}


def test_a_task_without_arguments_has_empty_ones_whoever_sent_it():
    for message in all_captured("msg.none.*"):
        assert (decoded(message).args, decoded(message).kwargs) == ([], {})
