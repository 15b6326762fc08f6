"""How logging is when nobody has changed it, as far as it decides what pytest's `caplog` gets."""

import logging
from collections.abc import Iterator

OURS = ("celeriac", "asyncio")
"""Loggers, with those below them, whose lines tests read."""

USUAL_CLASS = logging.Logger


def as_usual() -> list[str]:
    """Make logging as it usually is; return what was changed."""
    return [*_global_changes(), *(change for logger in _loggers() for change in _changes(logger))]


def _loggers() -> Iterator[logging.Logger]:
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in OURS and isinstance(logger, logging.Logger):
            yield logger


def _global_changes() -> Iterator[str]:
    if logging.root.manager.disable != logging.NOTSET:
        yield f"logging.disable({logging.root.manager.disable})"
        logging.disable(logging.NOTSET)
    yield from _level(logging.root, logging.WARNING)
    # pytest adds handlers of its own for each phase of a test.
    yield from _handlers(logging.root)


def _changes(logger: logging.Logger) -> Iterator[str]:
    if type(logger) is not USUAL_CLASS:
        yield f"{logger.name} is a {type(logger).__name__}"
        logger.__class__ = USUAL_CLASS
    if logger.disabled:
        yield f"{logger.name} is disabled"
        logger.disabled = False
    if not logger.propagate:
        yield f"{logger.name} does not propagate"
        logger.propagate = True
    yield from _level(logger, logging.NOTSET)
    yield from _handlers(logger)
    for added in list(logger.filters):
        yield f"{logger.name} has the filter {added!r}"
        logger.removeFilter(added)


def _level(logger: logging.Logger, usual: int) -> Iterator[str]:
    if logger.level != usual:
        yield f"{logger.name} has the level {logger.level}"
        logger.setLevel(usual)


def _handlers(logger: logging.Logger) -> Iterator[str]:
    for handler in list(logger.handlers):
        if not type(handler).__module__.startswith("_pytest."):
            yield f"{logger.name} has the handler {handler!r}"
            logger.removeHandler(handler)
