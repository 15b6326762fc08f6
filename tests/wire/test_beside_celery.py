"""Real kombu and Celery, in this process, read what celeriac writes and the other way round."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import billiard.exceptions
import celery
import celery.exceptions
import kombu
import kombu.serialization
import kombu.utils.json
import pytest
from celery.backends.base import KeyValueStoreBackend
from kombu.compression import compress as kombu_compress
from kombu.compression import decompress as kombu_decompress

from celeriac import errors
from celeriac.wire import result, task
from celeriac.wire.content import COMPRESSIONS, SERIALIZERS, Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.failure import describe, rebuild
from celeriac.wire.frame import pack, unpack
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage
from tests.wire.captures import EVERYTHING

VALUE = [1, "hé ☃", None, 1.5, {"k": [True, {}]}]
JSON_VALUE = [*VALUE, datetime(2020, 1, 2, tzinfo=UTC), Decimal("1.10"), uuid.UUID(int=5), b"\xff", b"text"]


class Store(KeyValueStoreBackend):
    """Celery's own result code over a dictionary."""

    def __init__(self, **options: Any) -> None:
        app = celery.Celery("store", set_as_current=False)
        app.conf.accept_content = ["json", "msgpack", "yaml", "pickle"]
        super().__init__(app, **options)
        self.kept: dict[str, bytes] = {}

    def get(self, key: Any) -> Any:
        return self.kept.get(_text(key))

    def set(self, key: Any, value: Any) -> None:
        self.kept[_text(key)] = value.encode() if isinstance(value, str) else value

    _set_with_state = lambda self, key, value, state: self.set(key, value)  # noqa: E731


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else key


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_kombu_reads_our_bodies(serializer: str):
    value = JSON_VALUE if serializer == "json" else VALUE
    content = EVERYTHING.encode(value, serializer)
    accept = {content.content_type}
    assert (
        kombu.serialization.loads(content.body, content.content_type, content.content_encoding, accept)
        == value
    )


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_we_read_kombus_bodies(serializer: str):
    value = JSON_VALUE if serializer == "json" else VALUE
    content_type, encoding, body = kombu.serialization.dumps(value, serializer)
    raw = body if isinstance(body, bytes) else body.encode()
    assert EVERYTHING.decode(raw, content_type, encoding) == value
    written = EVERYTHING.encode(value, serializer)
    assert (written.content_type, written.content_encoding) == (content_type, encoding)


# kombu has zstd only where another library than ours is installed.
@pytest.mark.parametrize("name", sorted(COMPRESSIONS.keys() - {"zstd", "zstandard"}))
def test_compressed_bodies_are_read_both_ways(name: str):
    body = b"some body" * 100
    packed, mime = EVERYTHING.compress(body, name)
    assert kombu_decompress(packed, mime) == body
    theirs, their_mime = kombu_compress(body, name)
    assert their_mime == mime
    assert EVERYTHING.decompress(theirs, their_mime) == body


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_kombu_delivers_our_message(protocol: Any, compression: str | None, unique: Callable[[str], str]):
    message = TaskMessage(
        id="the-id",
        task="tasks.add",
        args=[1],
        kwargs={"k": 2},
        retries=3,
        eta=datetime(2036, 1, 2, tzinfo=UTC),
        time_limit=60,
        headers={"mine": "v"},
        reply_to="r",
        protocol=protocol,
    )
    raw = pack(task.encode(message, EVERYTHING, compression=compression), delivery_tag="tag")
    queue = unique("queue")
    with kombu.Connection("memory://") as connection:
        bound = kombu.Queue(queue).bind(connection.default_channel)
        bound.declare()
        connection.default_channel._put(queue, kombu.utils.json.loads(raw))
        received = bound.get(accept=["json"])
    body = received.decode()
    if protocol == 2:
        assert body[:2] == [[1], {"k": 2}]
        fields = received.headers
    else:
        assert (body["args"], body["kwargs"]) == ([1], {"k": 2})
        fields = body
    assert (fields["id"], fields["task"], fields["retries"]) == ("the-id", "tasks.add", 3)
    assert fields["timelimit"] == [60, None]
    assert datetime.fromisoformat(fields["eta"]) == message.eta
    assert received.headers["mine"] == "v"
    assert received.properties["correlation_id"] == "the-id"


@pytest.mark.parametrize("protocol", [1, 2])
def test_we_read_what_celery_sends(protocol: int, unique: Callable[[str], str]):
    queue = unique("queue")
    app = celery.Celery("client", broker="memory://", set_as_current=False)
    app.conf.update(task_protocol=protocol, task_default_queue=queue)
    app.send_task(
        "tasks.add",
        (1, 2),
        {"k": [1]},
        task_id="the-id",
        countdown=60,
        expires=120,
        time_limit=10,
        soft_time_limit=5,
        priority=4,
        link=app.signature("then"),
        headers={"mine": Decimal("1.10")},
    )
    with app.connection_for_read() as connection:
        raw = kombu.utils.json.dumps(connection.default_channel._get(queue)).encode()
    envelope = unpack(raw)
    assert isinstance(envelope, Envelope)
    message = task.decode(envelope, Codecs())
    assert isinstance(message, TaskMessage), message
    assert (message.id, message.task, message.args, message.kwargs) == (
        "the-id",
        "tasks.add",
        [1, 2],
        {"k": [1]},
    )
    assert (message.time_limit, message.soft_time_limit, message.priority) == (10, 5, 4)
    assert message.headers == {"mine": Decimal("1.10")}
    assert message.eta is not None
    assert message.expires is not None
    assert 55 < (message.expires - message.eta).total_seconds() < 65
    assert 100_000 < int(envelope.expiration or 0) <= 120_000
    assert message.callbacks[0]["task"] == "then"
    assert message.protocol == protocol


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_celery_reads_our_results(serializer: str):
    store = Store(serializer=serializer)
    record = ResultRecord(
        task_id="i", status="SUCCESS", result=VALUE, children=[], date_done=datetime(2020, 1, 2, tzinfo=UTC)
    )
    store.set(store.get_key_for_task("i"), result.encode(record, EVERYTHING, serializer=serializer))
    meta = store.get_task_meta("i")
    assert (meta["status"], meta["result"], meta["task_id"]) == ("SUCCESS", VALUE, "i")


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("options", [{}, {"result_compression": "gzip"}, {"result_extended": True}])
def test_we_read_the_results_that_celery_writes(serializer: str, options: dict[str, Any]):
    store = Store(serializer=serializer)
    store.app.conf.update(options)
    store.store_result("i", VALUE, "SUCCESS")
    (raw,) = store.kept.values()
    record = result.decode(raw, EVERYTHING, "i", serializer)
    assert (record.status, record.result) == ("SUCCESS", VALUE)
    assert record.date_done is not None
    store.store_result("i2", ValueError("boom", 2), "FAILURE", traceback="tb")
    failed = result.decode(list(store.kept.values())[1], EVERYTHING, "i2", serializer)
    error = rebuild(failed.result)
    assert (type(error), error.args, failed.traceback) == (ValueError, ("boom", 2), "tb")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ValueError("boom", 2), ValueError),
        (errors.TaskNotFound("t"), celery.exceptions.NotRegistered),
        (errors.TaskRevoked("expired"), celery.exceptions.TaskRevokedError),
        (errors.TimeLimitExceeded(1), billiard.exceptions.TimeLimitExceeded),
        (errors.SoftTimeLimitExceeded(), billiard.exceptions.SoftTimeLimitExceeded),
        (errors.WorkerLost("signal 9"), billiard.exceptions.WorkerLostError),
        (errors.Reject("no", requeue=True), celery.exceptions.Reject),
    ],
    ids=lambda value: "" if isinstance(value, type) else type(value).__name__,
)
def test_celery_raises_its_own_class_for_our_failure(ours: Exception, theirs: type[Exception]):
    store = Store()
    raw = result.encode(ResultRecord(task_id="i", status="FAILURE", result=describe(ours)), Codecs())
    store.set(store.get_key_for_task("i"), raw)
    error = store.get_task_meta("i")["result"]
    assert type(error) is theirs
    assert error.args[: len(ours.args)] == ours.args


@pytest.mark.parametrize("aborting", [SystemExit(1), KeyboardInterrupt()])
def test_a_celery_client_survives_our_aborted_task(aborting: BaseException):
    store = Store()
    raw = result.encode(ResultRecord(task_id="i", status="FAILURE", result=describe(aborting)), Codecs())
    store.set(store.get_key_for_task("i"), raw)
    assert isinstance(store.get_task_meta("i")["result"], Exception)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (celery.exceptions.NotRegistered("t"), errors.TaskNotFound),
        (celery.exceptions.TaskRevokedError("revoked"), errors.TaskRevoked),
        (billiard.exceptions.WorkerLostError("x"), errors.WorkerLost),
        (billiard.exceptions.TimeLimitExceeded(1), errors.TimeLimitExceeded),
        (celery.exceptions.MaxRetriesExceededError("m"), celery.exceptions.MaxRetriesExceededError),
        (KeyError("k"), KeyError),
    ],
    ids=lambda value: "" if isinstance(value, type) else type(value).__name__,
)
def test_we_raise_our_own_class_for_celerys_failure(theirs: Exception, ours: type[Exception]):
    store = Store()
    store.store_result("i", theirs, "FAILURE")
    (raw,) = store.kept.values()
    assert type(rebuild(result.decode(raw, Codecs(), "i").result)) is ours
