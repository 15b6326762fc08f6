"""Exceptions whose constructors make something of their arguments: the same comes back, or a RemoteError."""

import dataclasses
import enum
import json
import os
import pickle
import threading
import urllib.error
from concurrent.futures import CancelledError, InvalidStateError
from pathlib import Path
from typing import Any

import pydantic
import pytest

from celeriac.errors import DeliveryLost, RemoteError
from celeriac.wire.content import Codecs
from celeriac.wire.extended_json import decode_json
from celeriac.wire.failure import Failure, describe, format_traceback, rebuild
from celeriac.wire.result import FAILURE, ResultRecord, decode, encode


class Prefixed(Exception):
    def __init__(self, status: Any) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class Reduced(Prefixed):
    def __init__(self, status: Any, body: str = "") -> None:
        super().__init__(status)
        self.body = body

    def __reduce__(self) -> Any:
        return Reduced, (self.status, self.body)


class Named(Exception):
    def __init__(self, *, item: str) -> None:
        self.item = item

    def __str__(self) -> str:
        return f"no item {self.item}"


class Coded(Exception):
    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Partly(Exception):
    def __init__(self, message: str, extra: Any) -> None:
        super().__init__(message)
        self.extra = extra


class Whole(Exception):
    """All its arguments are kept, beside what it makes anew each time."""

    def __init__(self, message: str, items: Any = ()) -> None:
        super().__init__(message, items)
        self.items = items
        self.lock = threading.Lock()


class Wayward(Exception):
    """Its own methods ask to end the process."""

    def _exit(self, *_: Any) -> Any:
        raise SystemExit(3)

    __reduce__ = __reduce_ex__ = __str__ = __repr__ = __eq__ = _exit  # type: ignore[assignment]
    __hash__ = Exception.__hash__


@dataclasses.dataclass
class Data(Exception):
    number: int


class Exits(Exception):
    def __init__(self, message: str, again: bool = True) -> None:
        if again:
            raise SystemExit(message)
        super().__init__(message)


class Refund(pydantic.BaseModel):
    amount: int


def raised(call: Any) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def returned(error: BaseException) -> Exception:
    """What the caller gets of it, by way of the stored record."""
    record = ResultRecord(task_id="t", status=FAILURE, result=describe(error))
    return rebuild(decode(encode(record, Codecs()), Codecs(), "t").result)


SAME = [
    Reduced(404, "not here"),
    Coded("late"),
    Whole("kept", (1, 2)),
    Data(5),
    raised(Path("/no/such/orders.csv").read_text),
    raised(lambda: os.stat("/no/such/orders.csv")),  # noqa: PTH116
    OSError("only a text"),
    OSError(2, "gone", "from.txt", None, "to.txt"),
    raised(lambda: json.loads("{")),
    raised(b"\xff".decode),
]


@pytest.mark.parametrize("error", SAME, ids=lambda error: type(error).__name__)
def test_what_round_trips_comes_back_as_it_was(error: Exception):
    got = returned(error)
    assert type(got) is type(error)
    assert str(got) == str(error) or isinstance(error, Whole)
    for name in ("status", "body", "code", "number", "filename", "filename2"):
        assert getattr(got, name, None) == getattr(error, name, None)


OTHER = [
    (Prefixed(404), "HTTP 404"),
    (Named(item="A-17"), "no item A-17"),
    (Coded("late", code=5), "late"),
    (Coded("late", 5), "late"),
    (Partly("half", extra={"a": 1}), "half"),
    (urllib.error.HTTPError("http://x/", 500, "Server Error", None, None), "HTTP Error 500: Server Error"),  # type: ignore[arg-type]
    (raised(lambda: Refund(amount="x")), "Input should be a valid integer"),  # type: ignore[arg-type]
    (Data(number=object()), "object object"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "text"), OTHER, ids=lambda value: type(value).__name__)
def test_what_does_not_is_a_remote_error_with_the_text(error: Exception, text: str):
    got = returned(error)
    assert type(got) is RemoteError
    assert got.type_name == type(error).__qualname__
    assert text in str(got)
    assert "HTTP HTTP" not in str(got)
    # It can be told on: by a task that waited for it, or another process.
    assert str(returned(got)) == str(got) == str(pickle.loads(pickle.dumps(got)))


def test_the_record_has_what_celery_stores_for_its_own_readers():
    stored = decode_json(
        encode(ResultRecord(task_id="t", status=FAILURE, result=describe(Prefixed(404))), Codecs())
    )
    assert stored["result"] == {
        "exc_type": "Prefixed",
        "exc_message": ["HTTP 404"],
        "exc_module": __name__,
        "exc_text": "HTTP 404",
    }


def test_what_celery_stored_is_no_other_exception_either():
    got = rebuild({"exc_type": "Prefixed", "exc_message": ["HTTP 404"], "exc_module": __name__})
    assert (type(got), str(got)) == (RemoteError, "Prefixed: HTTP 404")


def test_a_constructor_that_exits_ends_neither_the_worker_nor_the_reader():
    error = Exits("quietly", again=False)
    assert type(returned(error)) is RemoteError
    assert type(rebuild(Failure("Exits", ["quietly"], __name__))) is RemoteError


def test_an_exception_whose_own_methods_exit_ends_neither_the_worker_nor_the_reader():
    for error in (Wayward("quietly"), LookupError(Wayward("quietly"))):
        back = returned(error)
        assert type(back).__name__ in ("Wayward", "LookupError", "RemoteError")
        assert "Wayward" in describe(error).exc_type + str(describe(error).exc_message)
        format_traceback(error)


class Colour(enum.Enum):
    RED = 1


def test_an_argument_that_json_gives_back_as_another_value_is_not_taken_for_the_same():
    back = returned(Coded("busy", Colour.RED))
    assert (type(back), back.text) == (RemoteError, "busy")
    assert returned(ValueError({1})).args == ("{1}",)
    assert returned(ValueError(Colour.RED, (1, 2))).args == ("<Colour.RED: 1>", [1, 2])


class Late(CancelledError):
    pass


class Lost(DeliveryLost):
    pass


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("CancelledError", "concurrent.futures._base"),
        ("CancelledError", "concurrent.futures"),
        ("InvalidStateError", "concurrent.futures._base"),
        ("BrokenThreadPool", "concurrent.futures.thread"),
        ("InvalidStateError", "asyncio.exceptions"),
        ("QueueEmpty", "asyncio.queues"),
        ("BrokenBarrierError", "threading"),
        ("Empty", "_queue"),
        ("BdbQuit", "bdb"),
        ("Ignore", "celery.exceptions"),
        ("Retry", "celery.exceptions"),
        ("DeliveryLost", "celeriac.errors"),
        ("Ignore", "celeriac.errors"),
        ("ReplaceRequested", "celeriac.errors"),
        ("Mismatch", "celeriac.arguments.hints"),
        ("Late", __name__),
        ("Lost", __name__),
    ],
)
def test_what_steers_more_than_the_caller_does_not_come_out_of_a_record(name: str, module: str):
    import bdb  # noqa: F401
    import concurrent.futures.thread  # noqa: F401

    import celery.exceptions  # noqa: F401

    got = rebuild(Failure(name, ["why"], module))
    assert (type(got), str(got)) == (RemoteError, f"{name}: why")


@pytest.mark.parametrize("error", [CancelledError("c"), InvalidStateError("i"), Late("l")], ids=repr)
def test_neither_does_it_out_of_a_pickled_one(error: Exception):
    assert type(rebuild(error)) is RemoteError
