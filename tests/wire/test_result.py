"""Result records, both ways, of every writer."""

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

from celeriac.errors import ContentRefused, EncodeError, MalformedMessage
from celeriac.wire import result
from celeriac.wire.content import Codecs
from celeriac.wire.failure import Failure, describe, rebuild
from celeriac.wire.result import ResultRecord
from tests.wire.captures import EVERYTHING, load, names, stored

METAS = [name for name in names("result.*.redis") if "status" in str(load(name)["raw"])[:200]]
SERIALIZER = {
    "result.msgpack.redis": "msgpack",
    "result.pickle.redis": "pickle",
    "result.pickle-failure.redis": "pickle",
}
DONE = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def read(name: str, task_id: str = "the-id") -> ResultRecord:
    return result.decode(stored(name), EVERYTHING, task_id, SERIALIZER.get(name, "json"))


@pytest.mark.parametrize("name", METAS)
def test_a_captured_result_is_read_as_its_writer_meant_it(name: str):
    theirs, record = json.loads(stored(name)), read(name)
    value = record.result
    if isinstance(value, Failure):
        value = {"exc_type": value.exc_type, "exc_message": value.exc_message, "exc_module": value.exc_module}
        theirs["result"].setdefault("exc_module", None)
    assert value == theirs["result"]
    assert record.status == theirs["status"]
    assert record.task_id == "the-id"
    assert record.traceback == (theirs["traceback"] if isinstance(theirs["traceback"], str) else None)
    assert record.children == theirs["children"]
    for field in ("group_id", "parent_id", "name", "args", "kwargs", "worker", "retries", "queue"):
        assert getattr(record, field) == theirs.get(field)
    done = theirs.get("date_done")
    assert (record.date_done is None) == (done is None)
    assert record.date_done is None or record.date_done.replace(tzinfo=None) == _naive(done)
    assert record.date_done is None or record.date_done.utcoffset() == timedelta(0)


def _naive(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)


@pytest.mark.parametrize("name", [name for name in METAS if len(name.split(".")) == 3])
def test_a_result_of_celery_is_written_again_as_it_was(name: str):
    theirs = json.loads(stored(name))
    record = read(name, theirs["task_id"])
    ours = json.loads(result.encode(record, Codecs(), extended="name" in theirs))
    assert ours == theirs
    if "name" not in theirs:
        assert list(ours) == list(theirs)


def test_writers_without_a_status_of_their_own_are_covered():
    writers = {name.split(".")[2] for name in METAS if len(name.split(".")) == 4}
    assert writers == {"celery31", "celery44", "gocelery", "node"}


@pytest.mark.parametrize(
    "name", ["result.msgpack.redis", "result.pickle.redis", "result.compressed-gzip.redis"]
)
def test_values_in_other_forms_are_read(name: str):
    record = read(name)
    assert (record.status, record.result) == ("SUCCESS", {"a": 1})
    assert (record.group_id, record.parent_id) == ("g-1", "p-1")


def test_a_pickled_exception_is_rebuilt_as_itself():
    error = rebuild(read("result.pickle-failure.redis").result)
    assert type(error) is ValueError
    assert error.args == ("boom",)


def test_a_pickled_result_is_refused_where_pickle_is_not_accepted():
    for serializer in ("pickle", "json"):
        with pytest.raises(ContentRefused, match="x-python-serialize"):
            result.decode(stored("result.pickle.redis"), Codecs(), "i", serializer)


def test_a_failure_without_details_of_celery_node_can_be_raised():
    record = read("result.failure.node.redis")
    assert record.result is None
    assert isinstance(rebuild(record.result), Exception)


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("extended", [False, True])
def test_a_record_comes_back_as_it_was(serializer: str, extended: bool):
    record = ResultRecord(
        task_id="i",
        status="SUCCESS",
        result={"a": [1, None, "é"]},
        children=[[["c", None], None]],
        date_done=DONE,
        group_id="g",
        parent_id="p",
    )
    if extended:
        record = ResultRecord(
            **{name: getattr(record, name) for name in ("task_id", "status", "result", "date_done")},
            name="t",
            args=[1],
            kwargs={"k": 2},
            worker="w@h",
            retries=1,
            queue="q",
            stamps={"s": "v", "status": "a stamp of that name"},
        )
    raw = result.encode(record, EVERYTHING, serializer=serializer, extended=extended)
    found = result.decode(raw, EVERYTHING, "i", serializer)
    if extended:
        assert found.status == "SUCCESS"
        assert found.stamps["s"] == "v"
        found, record = (_without_stamps(each) for each in (found, record))
    assert found == record


def _without_stamps(record: ResultRecord) -> ResultRecord:
    return ResultRecord(
        **{name: getattr(record, name) for name in ResultRecord.__struct_fields__ if name != "stamps"}
    )


@pytest.mark.parametrize("status", ["RETRY", "FAILURE", "REVOKED"])
def test_an_exception_comes_back_in_every_state_that_holds_one(status: str):
    record = ResultRecord(task_id="i", status=status, result=describe(KeyError("k")), traceback="tb")
    found = result.decode(result.encode(record, Codecs()), Codecs(), "i")
    assert found == record
    assert found.ready == (status != "RETRY")


def test_a_value_that_looks_like_an_exception_stays_a_value():
    value = {"exc_type": "ValueError", "exc_message": ["x"], "exc_module": "builtins"}
    record = ResultRecord(task_id="i", status="SUCCESS", result=value)
    assert result.decode(result.encode(record, Codecs()), Codecs(), "i").result == value


def test_none_is_a_result():
    raw = result.encode(ResultRecord(task_id="i", status="SUCCESS", result=None, children=[]), Codecs())
    assert json.loads(raw)["result"] is None
    assert json.loads(raw)["children"] == []


def test_text_that_has_no_utf_8_form_is_escaped():
    record = ResultRecord(task_id="i", status="FAILURE", result="\ud800", traceback="\udfff")
    assert result.decode(result.encode(record, Codecs()), Codecs(), "i") == record


def test_a_result_that_cannot_be_written_is_named():
    with pytest.raises(EncodeError, match=r"result\['k'\]: <class 'object'>"):
        result.encode(ResultRecord(task_id="i", status="SUCCESS", result={"k": object()}), Codecs())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"5",
        b"[]",
        b"{}",
        b'{"status": null}',
        b'{"status": 5}',
        b"garbage",
        b"\x00celery-compressed\x00",
    ],
)
def test_what_is_no_result_is_malformed(raw: bytes):
    with pytest.raises((MalformedMessage, ContentRefused)):
        result.decode(raw, Codecs(), "i")


def test_fields_of_any_type_do_not_hide_the_value():
    meta = {
        "status": "SUCCESS",
        "result": 5,
        "traceback": {"x": 1},
        "children": "none",
        "date_done": "yesterday",
        "group_id": 1,
        "retries": "two",
        "stamped_headers": 5,
        "task_id": None,
    }
    assert result.decode(json.dumps(meta).encode(), Codecs(), "i") == ResultRecord(
        task_id="i", status="SUCCESS", result=5
    )


def test_a_time_keeps_its_offset():
    record = ResultRecord(
        task_id="i", status="SUCCESS", date_done=DONE.astimezone(timezone(timedelta(hours=-5)))
    )
    found = result.decode(result.encode(record, Codecs()), Codecs(), "i")
    assert found.date_done == DONE
    assert found.date_done.utcoffset() == timedelta(hours=-5)


# --- the result column of database stores -----------------------------------------------------------------------


def rows(dialect: str, serializer: str) -> list[dict[str, Any]]:
    return load(f"db.{dialect}.{serializer}")["raw"]["rows"]["celery_taskmeta"]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_the_result_column_is_read_and_written_as_celery_does(dialect: str, serializer: str):
    seen = set()
    for row in rows(dialect, serializer):
        if row["result"] is None:
            continue
        raw = bytes.fromhex(row["result"]["$hex"])
        value = result.decode_value(raw, row["status"], EVERYTHING, serializer)
        seen.add(row["status"])
        if row["status"] in result.EXCEPTION_STATES:
            assert isinstance(rebuild(value), Exception)
        if serializer == "json":
            record = ResultRecord(task_id=row["task_id"], status=row["status"], result=value)
            assert json.loads(result.encode_value(record, EVERYTHING)) == json.loads(raw)
    assert {"SUCCESS", "FAILURE", "RETRY", "REVOKED"} <= seen


def test_a_column_that_an_older_celery_pickled_is_read_where_pickle_is_accepted():
    raw = pickle.dumps({"a": 1})
    assert result.decode_value(raw, "SUCCESS", EVERYTHING, "json") == {"a": 1}
    with pytest.raises(ContentRefused):
        result.decode_value(raw, "SUCCESS", Codecs(), "json")
    assert result.decode_value(None, "STARTED", Codecs()) is None


@pytest.mark.parametrize("zone", [UTC, None, timezone(timedelta(hours=2)), timezone(timedelta(0), "zero")])
@pytest.mark.parametrize("microsecond", [0, 10, 999_999])
def test_the_moment_is_written_as_celery_writes_it(zone: tzinfo | None, microsecond: int):
    done = datetime(2026, 1, 2, 3, 4, 5, microsecond, zone)
    written = json.loads(result.encode(ResultRecord("i", "SUCCESS", date_done=done), Codecs()))
    assert written["date_done"] == done.isoformat()
