"""The worker's log lines, as text or as JSON.

Rules: only the logger ``celeriac`` gets a handler; the root logger is left alone, and records still reach whatever the
user hung there. While a handler of the user writes to the terminal, this one is silent, so no line comes twice.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import click
import msgspec

LogFormat = Literal["text", "json"]

LOGGER = "celeriac"
COLOURS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red", logging.DEBUG: "cyan"}


def log_to_stderr(level: str, form: LogFormat | None, node: str, *, one_of_many: bool = False) -> None:
    """Write the lines of celeriac's loggers to stderr.

    :param level: the least level to write, in any case.
    :param form: ``None`` is text, where the user's module has not made arrangements of its own.
    :param node: the worker's node name, for JSON lines.
    :param one_of_many: text lines carry the node name too.
    """
    handle_lines(level, form, node, one_of_many=one_of_many)
    if form is not None and _user_writes_to_terminal():
        logging.getLogger(LOGGER).warning(
            "--log-format %s has no effect: the app's module has set up logging of its own", form
        )


def handle_lines(level: str, form: LogFormat | None, node: str, *, one_of_many: bool = False) -> None:
    """Do so without a word; for child processes, too."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level.upper())
    handler = WorkerHandler(sys.stderr)
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    text = TextLine(colours=colours, node=node if one_of_many else "")
    handler.setFormatter(JsonLine(node) if form == "json" else text)
    logger.addHandler(handler)


class WorkerHandler(logging.StreamHandler[Any]):
    """Writes to stderr unless the user's own handlers write to the terminal already."""

    def emit(self, record: logging.LogRecord) -> None:
        if not _user_writes_to_terminal():
            super().emit(record)


class TextLine(logging.Formatter):
    """Time, level, text; a task's own lines carry its name and id.

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
        text = f"{stamp} {level} {self._node}{_named(record)}"
        trace = _traceback(self, record)
        return f"{text}\n{trace}" if trace else text


class JsonLine(logging.Formatter):
    """One JSON object a line: time, level, logger, worker, message, and where known task_id, task_name, exception."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "worker": self._node,
            "message": record.getMessage(),
        }
        for name in ("task_id", "task_name"):
            if (value := getattr(record, name, None)) is not None:
                line[name] = str(value)
        if trace := _traceback(self, record):
            line["exception"] = trace
        return msgspec.json.encode(line).decode()


def _named(record: logging.LogRecord) -> str:
    text, task_id = record.getMessage(), getattr(record, "task_id", None)
    if task_id and str(task_id) not in text:
        return f"{getattr(record, 'task_name', 'task')}[{task_id}] {text}"
    return text


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _user_writes_to_terminal() -> bool:
    handlers = [*logging.getLogger().handlers, *logging.getLogger(LOGGER).handlers]
    return any(
        isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, WorkerHandler)
        and handler.stream in (sys.stderr, sys.stdout)
        for handler in handlers
    )
