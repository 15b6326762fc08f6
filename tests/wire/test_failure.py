"""Exceptions, stored and rebuilt."""

import asyncio
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from celeriac import errors
from celeriac.errors import RemoteError
from celeriac.wire.extended_json import encode_json
from celeriac.wire.failure import Failure, describe, format_traceback, rebuild
from tests.wire.captures import load


class Custom(Exception):
    pass


class TwoArguments(Exception):
    def __init__(self, a: Any, b: Any) -> None:
        super().__init__(a, b)


class Swallows(Exception):
    """Its args are not what its constructor wants."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} {b}")


class Outer:
    class Inner(Exception):
        pass


class BadArgs(Exception):
    args = property(lambda self: 1 / 0)  # type: ignore[assignment]


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def same(a: BaseException, b: BaseException) -> bool:
    return type(a) is type(b) and a.args == b.args


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom"),
        ValueError(),
        KeyError("k", 2),
        OSError(2, "gone"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        Custom("custom", 42, None, [1, {"a": 1.5}]),
        TwoArguments("a", 2),
        Outer.Inner("x"),
        TimeoutError("late"),
        errors.TaskNotFound("no.such.task"),
        errors.TaskRevoked("expired"),
        errors.SoftTimeLimitExceeded(),
        errors.TimeLimitExceeded(1),
        errors.WorkerLost("signal 9"),
        errors.TaskAborted("SystemExit(1)"),
        errors.ArgumentError("x must be int"),
        errors.BrokerUnavailable("away"),
    ],
    ids=repr,
)
def test_an_exception_comes_back_as_it_was(error: Exception):
    stored = describe(error)
    assert same(rebuild(stored), error)
    as_json = json.loads(encode_json([stored.exc_type, stored.exc_message, stored.exc_module]))
    assert [stored.exc_type, list(error.args)][0] == as_json[0]


@pytest.mark.parametrize(
    ("error", "fixture"),
    [
        (ValueError("boom"), "result.failure.redis"),
        (errors.TaskNotFound("no.such.task"), "result.not-registered.redis"),
        (errors.TaskRevoked("expired"), "result.expired-revoked.redis"),
        (errors.TimeLimitExceeded(1), "result.hard-time-limit.redis"),
        (errors.SoftTimeLimitExceeded(), "result.soft-time-limit.redis"),
        (errors.Reject("no", requeue=False), "result.reject.redis"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_ending_is_stored_under_the_name_that_celery_gives_it(error: Exception, fixture: str):
    theirs = json.loads(load(fixture)["raw"])["result"]
    ours = describe(error)
    assert {
        "exc_type": ours.exc_type,
        "exc_message": ours.exc_message,
        "exc_module": ours.exc_module,
    } == theirs


def test_arguments_that_json_lacks_become_their_repr():
    stored = describe(Custom(object, 1, {"k": {1j}}))
    assert stored.exc_message == [repr(object), 1, "{'k': {1j}}"]


def test_a_class_from_nowhere_comes_back_as_a_remote_error_and_is_stored_as_itself_again():
    stored = Failure("Odd", ["a", 1], "no.such.module")
    error = rebuild(stored)
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.arguments, error.module) == ("Odd", ("a", 1), "no.such.module")
    assert describe(error) == stored


def test_a_constructor_that_refuses_leaves_a_remote_error():
    error = rebuild(describe(Swallows(1, 2)))
    assert isinstance(error, RemoteError)
    assert str(error) == "Swallows: 1 2"


@pytest.mark.parametrize(
    "aborting",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseException("b")],
)
def test_what_would_end_a_process_is_stored_as_an_aborted_task(aborting: BaseException):
    stored = describe(aborting)
    assert (stored.exc_type, stored.exc_module) == ("TaskAborted", "celeriac.errors")
    assert repr(aborting) in stored.exc_message
    assert isinstance(rebuild(stored), errors.TaskAborted)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("SystemExit", "builtins"),
        ("KeyboardInterrupt", "builtins"),
        ("CancelledError", "asyncio.exceptions"),
        ("StopIteration", "builtins"),
        ("StopAsyncIteration", "builtins"),
        ("Ignore", "celeriac.errors"),
        ("RetryRequested", "celeriac.errors"),
        ("system", "os"),
        ("int", "builtins"),
        ("eval", "builtins"),
        ("", "builtins"),
        ("..", "builtins"),
        ("Outer.Inner.missing", __name__),
        ("X", "\x00"),
    ],
)
def test_only_exceptions_that_may_be_raised_anywhere_are_rebuilt(name: str, module: str):
    assert type(rebuild(Failure(name, ["arg"], module))) is RemoteError


def test_nothing_is_imported_to_rebuild(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    lazy = ModuleType("lazy_module")
    lazy.__getattr__ = lambda name: pytest.fail(f"{name} was asked for")  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    assert type(rebuild(Failure("Anything", [], "lazy_module"))) is RemoteError
    # A module that is on the path, and that nobody else imports.
    (tmp_path / "never_imported.py").write_text("class Error(Exception): ...")
    monkeypatch.syspath_prepend(tmp_path)
    assert type(rebuild(Failure("Error", [], "never_imported"))) is RemoteError
    assert "never_imported" not in sys.modules


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"exc_type": "ValueError", "exc_message": ["boom", 2], "exc_module": "builtins"}, ValueError("boom", 2)),
        ({"exc_type": "ValueError", "exc_message": ["boom"]}, ValueError("boom")),
        ({"exc_type": "ValueError", "exc_message": "('boom', 2)"}, ValueError("('boom', 2)")),  # Celery 3.1
        ({"exc_type": "TaskRevokedError", "exc_message": "revoked"}, errors.TaskRevoked("revoked")),
        ({"exc_type": "WorkerLostError", "exc_message": ["x"]}, errors.WorkerLost("x")),
        ({"exc_type": "NotRegistered", "exc_message": ["t"]}, errors.TaskNotFound("t")),
        ({"exc_type": "ValueError", "exc_message": None, "exc_module": "builtins"}, ValueError()),
        ({"exc_type": "ValueError", "exc_message": 5, "exc_module": None}, ValueError(5)),
        (ValueError("pickled"), ValueError("pickled")),
    ],
)  # fmt: skip
def test_every_stored_form_is_read(stored: Any, expected: Exception):
    assert same(rebuild(stored), expected)


@pytest.mark.parametrize(
    "stored", [None, 5, "text", [], {}, {"exc_type": None}, {"exc_type": ["a"]}, object()]
)
def test_what_is_no_failure_is_still_an_exception(stored: Any):
    assert type(rebuild(stored)) is RemoteError


def test_a_pickled_exit_does_not_end_the_reader():
    assert isinstance(rebuild(SystemExit(1)), errors.TaskAborted)


def recursive() -> Exception:
    error = Custom("top")
    error.args = (error, [error])
    error.__cause__ = error
    return error


@pytest.mark.parametrize(
    "error",
    [BadArgs(), BadText(BadText()), recursive(), Custom("\ud800"), Custom(10**5000), Custom(b"\xff" * 10**6)],
    ids=lambda error: type(error).__name__,
)
def test_no_exception_is_too_odd_to_be_stored_and_shown(error: Exception):
    stored = describe(error)
    encode_json(stored.exc_message)
    assert isinstance(rebuild(stored), Exception)
    assert isinstance(format_traceback(error), str)


def test_a_group_of_exceptions_is_stored_readably():
    stored = describe(ExceptionGroup("several", [ValueError("a"), KeyError("b")]))
    assert stored.exc_type == "ExceptionGroup"
    assert "ValueError('a')" in str(rebuild(stored))


def test_a_traceback_names_the_line_and_the_cause():
    try:
        try:
            raise KeyError("inner")
        except KeyError as cause:
            raise ValueError("outer") from cause
    except ValueError as error:
        text = format_traceback(error)
    assert text.startswith("Traceback (most recent call last):")
    assert "KeyError: 'inner'" in text
    assert text.endswith("ValueError: outer\n")


def test_a_traceback_has_a_largest_size():
    text = format_traceback(ValueError("x" * 1_000_000))
    assert len(text) < 70_000
    assert "characters left out" in text


def test_a_deep_recursion_has_a_traceback():
    def down() -> None:
        down()

    with pytest.raises(RecursionError) as caught:
        down()
    assert "down()" in format_traceback(caught.value)
    assert same(rebuild(describe(caught.value)), caught.value)
