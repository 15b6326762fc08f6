"""The worker's log lines, as text or as JSON.

Rules: the logger ``celeriac`` gets a handler of its own, so that a task which sets up logging anew does not silence the
worker. The root logger gets another one and the level, unless the user's module has hung handlers there; records still
reach whatever the user hung there. Where a handler of the user writes a record to the terminal, these are silent, so no
line comes twice. A record is one line, its traceback is indented
below it: nothing that a message brings along can begin a line that looks like another record.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import Any, Literal

import click
import msgspec

from celeriac.cli.file_names import file_named
from celeriac.cli.visible import visible, visible_halves, visible_json, visible_lines
from celeriac.context import current_context
from celeriac.errors import ConfigError

LogFormat = Literal["text", "json"]

LOGGER = "celeriac"
COLOURS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red", logging.DEBUG: "cyan"}
INDENT = "  "


class LogStyle(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the log on the command line.

    :param level: the least level to write, in any case.
    :param form: ``None`` is text, where the user's module has not made arrangements of its own.
    :param file: write there in place of stderr; see ``file_named``.
    :param one_of_many: text lines carry the node name too.
    """

    level: str
    form: LogFormat | None
    file: str | None = None
    one_of_many: bool = False


def set_up_logging(style: LogStyle, node: str) -> None:
    """Write the lines of celeriac's loggers, and of the user's. Raises ``ConfigError`` for a file that cannot be.

    :param node: the worker's node name.
    """
    handle_lines(style, node)
    if style.form is not None and style.file is None and _user_writes_to_terminal(LOGGER):
        logging.getLogger(LOGGER).warning(
            "--log-format %s has no effect: the app's module has set up logging of its own", style.form
        )


def handle_lines(style: LogStyle, node: str) -> None:
    """Do so without a word; for child processes, too."""
    own, root = logging.getLogger(LOGGER), logging.getLogger()
    handler = _handler(style, node)  # before anything is changed, since there may be none
    _keep_loggers_enabled()
    own.setLevel(style.level.upper())
    own.addHandler(handler)
    if not root.handlers:
        root.setLevel(style.level.upper())
        users = _handler(style, node)
        users.addFilter(lambda record: not _is_own(record.name))
        root.addHandler(users)


class _EnabledLogger(logging.Logger):
    """Cannot be disabled, as ``dictConfig`` and ``fileConfig`` do to every logger that they do not name."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        """Leave it enabled."""


def _keep_loggers_enabled() -> None:
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and _is_own(name):
            logger.__class__ = _EnabledLogger


def _is_own(name: str) -> bool:
    return name == LOGGER or name.startswith(f"{LOGGER}.")


def _handler(style: LogStyle, node: str) -> logging.Handler:
    handler = _open(style, node)
    handler.setFormatter(_formatter(style, node))
    return handler


def _open(style: LogStyle, node: str) -> logging.Handler:
    if style.file is None:
        return WorkerHandler(sys.stderr)
    path = file_named(style.file, node)
    try:
        # Watched: what rotates logs moves the file away.
        return WatchedFileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"--logfile {path} cannot be written: {error.strerror}") from error


def _formatter(style: LogStyle, node: str) -> logging.Formatter:
    if style.form == "json":
        return JsonLine(node)
    colours = style.file is None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return TextLine(colours=colours, node=node if style.one_of_many else "")


class WorkerHandler(logging.StreamHandler[Any]):
    """Writes to stderr what the user's own handlers do not write to the terminal already."""

    def emit(self, record: logging.LogRecord) -> None:
        if not _user_writes_to_terminal(record.name):
            super().emit(record)


class TextLine(logging.Formatter):
    """Time, level, text; lines that a task causes carry its name and id.

    :param colours: mark levels by colour.
    :param node: put before the text where it is not empty.
    """

    def __init__(self, *, colours: bool, node: str = "") -> None:
        super().__init__()
        self._colours = colours
        self._node = f"{node}: " if node else ""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        stamp, level = f"{time}.{int(record.msecs):03d}", f"{record.levelname:<7}"
        if self._colours:
            stamp = click.style(stamp, dim=True)
            level = click.style(level, fg=COLOURS.get(record.levelno), bold=record.levelno >= logging.ERROR)
        line = f"{stamp} {level} {visible(self._node + _named(record))}"
        trace = _traceback(self, record)
        return (
            "\n".join([line, *(f"{INDENT}{part}" for part in visible_lines(trace).split("\n"))])
            if trace
            else line
        )


class JsonLine(logging.Formatter):
    """One JSON object a line: time, level, logger, worker, message, and where known ids, names and exception."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "worker": self._node,
            "message": _message(record),
        }
        task_id, task_name = _task_of(record)
        if task_id is not None:
            line["task_id"] = task_id
        if task_name is not None:
            line["task_name"] = task_name
        line.update(_trace_of(record))
        if trace := _traceback(self, record):
            line["exception"] = trace
        try:
            encoded = msgspec.json.encode(line)
        except UnicodeEncodeError:
            encoded = msgspec.json.encode({name: visible_halves(text) for name, text in line.items()})
        return visible_json(encoded.decode())


def _named(record: logging.LogRecord) -> str:
    text, (task_id, task_name) = _message(record), _task_of(record)
    return f"{task_name or 'task'}[{task_id}] {text}" if task_id and task_id not in text else text


def _task_of(record: logging.LogRecord) -> tuple[str | None, str | None]:
    """Return id and name of the task that a record is about: what it says itself, or the task that runs here."""
    given = getattr(record, "task_id", None), getattr(record, "task_name", None)
    if given == (None, None) and (context := current_context()) is not None:
        given = context.id, context.task
    task_id, task_name = (None if value is None else str(value) for value in given)
    return task_id, task_name


def _trace_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the ids of the trace and the span that a record belongs to, where there is one."""
    context = current_context()
    known: Mapping[str, str] = {} if context is None else context.log_fields
    given = {name: getattr(record, name, None) or known.get(name) for name in ("trace_id", "span_id")}
    return {name: str(value) for name, value in given.items() if value}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit, or that cannot be shown
        return f"{record.msg} (its arguments cannot be filled in: {type(error).__name__}: {error})"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _user_writes_to_terminal(name: str) -> bool:
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        for handler in logger.handlers:
            if (
                isinstance(handler, logging.StreamHandler)
                and not isinstance(handler, WorkerHandler)
                and handler.stream in (sys.stderr, sys.stdout)
            ):
                return True
        logger = logger.parent if logger.propagate else None
    return False
