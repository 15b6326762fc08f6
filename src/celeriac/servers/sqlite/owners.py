"""The owners of taken messages: gives this process its number, and finds out which owners have died.

Rules: a process that holds messages has a lock (``flock``) on a file of its own beside the database. The system frees
the lock when the process ends, in whatever way, and never before: a busy or suspended process keeps it. The file is
locked before the first message bears its number. A process that gets the lock of another one's file knows that the
other is dead, and deletes the file. A forked process closes its copy of the descriptor, since it would otherwise keep
the lock of a worker that died. All processes must be on one machine, as SQLite's write-ahead log demands, too, because
locks of network file systems are not reliable.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import secrets
import stat
import weakref
from collections.abc import Collection
from pathlib import Path

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable

try:
    import fcntl
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

_log = logging.getLogger("celeriac.broker.sqlite")

_LONGEST_LOOK = 1.0
_LOOK = 1 / 3
"""The longest pause between two looks at whether other owners live: in seconds, and as a part of the lease."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_FILE = {errno.ENOENT, errno.ELOOP, errno.ENXIO}
"""What opening says where no file is that an owner could have locked: nothing, a link, a socket."""


class Owners:
    """The owners of one database's messages, as one of them sees the others.

    :param file: the database.
    :param lease: seconds after which the messages of a process that died are others' at the latest.
    """

    def __init__(self, file: Path, clock: Clock, lease: float) -> None:
        self._file = file
        self._clock = clock
        self._lock: _Lock | None = None
        self._look = min(_LONGEST_LOOK, lease * _LOOK)
        self._look_at = float("-inf")
        self._unknown: set[int] = set()

    @property
    def own(self) -> int | None:
        """The number that our messages bear, ``None`` where we hold none."""
        return self._lock.number if self._lock is not None else None

    def hold(self) -> int:
        """Return the number for what is taken now: a new one where our file is gone, since we are taken for dead then.

        Raises ``BrokerUnavailable`` where the file cannot be made, ``BrokerError`` where it cannot be locked.
        """
        if self._lock is None or not self._lock.stands():
            self.let_go()
            self._lock = _lock(self._file)
        return self._lock.number

    def let_go(self) -> None:
        """Give up the lock, so that others take back messages that still bear our number. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def is_time_to_look(self) -> bool:
        """Return whether the last look was a while ago; it begins anew."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + self._look
        return True

    def next_look(self) -> float:
        """Return when it is time to look, in seconds since the epoch."""
        return self._clock.now() + max(0.0, self._look_at - self._clock.monotonic())

    def dead_among(self, numbers: Collection[int]) -> list[int]:
        """Return the owners that have died."""
        return [number for number in numbers if number != self.own and not self._lives(number)]

    def _lives(self, number: int) -> bool:
        try:
            return _is_locked(_lock_file(self._file, number))
        except OSError as error:
            if number not in self._unknown:
                self._unknown.add(number)
                place = str(_lock_file(self._file, number))
                _log.warning(
                    "nobody gets what owner %d holds, since it cannot be told whether it lives: %r: %s",
                    number,
                    place,
                    error.strerror,
                )
            return True


class _Lock:
    """A file that is locked for as long as this process holds messages under its number."""

    def __init__(self, database: Path) -> None:
        # A random number stays unique even if a transaction is rolled back; a counter in the file would not.
        self.number = secrets.randbits(62)
        self._place = _lock_file(database, self.number)
        self._descriptor: int | None = _make_locked(self._place, stat.S_IMODE(database.stat().st_mode))
        _OPEN.add(self)

    def stands(self) -> bool:
        """Return whether others find the file where it was."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(self._place.lstat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._place.unlink()
            self.close_copy()

    def close_copy(self) -> None:
        """Close the descriptor: the lock stands while another process has it open."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class _Open:
    """The locks that this process has open; closes their copies in a process that is forked.

    What is registered with ``os`` stays registered, so there is one of these. It is registered before a worker's
    signals are, which must come last: an interrupt that a forked process gets in here is dropped by Python.
    """

    def __init__(self) -> None:
        self._locks: weakref.WeakSet[_Lock] = weakref.WeakSet()
        self.add = self._locks.add
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._close_copies)

    def _close_copies(self) -> None:
        for lock in self._locks:
            lock.close_copy()


_OPEN = _Open()


def _lock(database: Path) -> _Lock:
    """Make a lock, and delete the files of owners that died while they held no messages."""
    try:
        for place in database.parent.glob(f"{glob.escape(database.name)}.*.owner"):
            if _is_ours(place, database):
                with contextlib.suppress(OSError):
                    _is_locked(place)
        lock = _Lock(database)
        while not lock.stands():  # another took it for one that was left, just before it was locked
            lock.close()
            lock = _Lock(database)
    except OSError as error:
        kind = BrokerError if error.errno in _NO_LOCKS else BrokerUnavailable
        raise kind(
            f"a file beside {str(database)!r} cannot be made and locked, by which others see that this worker lives: "
            f"{error.strerror}; see to the disk and to the rights of the directory"
        ) from error
    return lock


def _lock_file(database: Path, number: int) -> Path:
    return database.with_name(f"{database.name}.{number & (1 << 64) - 1:016x}.owner")


def _is_ours(place: Path, database: Path) -> bool:
    middle = place.name.removeprefix(f"{database.name}.").removesuffix(".owner")
    return len(middle) == 16 and set(middle) <= set("0123456789abcdef")


def _make_locked(place: Path, mode: int) -> int:
    if not HAS_LOCKS:
        raise OSError(errno.ENOSYS, "this system has no flock")
    descriptor = os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.fchmod(descriptor, mode)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        place.unlink(missing_ok=True)
        raise
    return descriptor


def _is_locked(place: Path) -> bool:
    """Return whether a process has locked the file; delete it if none has. Raises ``OSError`` if that is unknown."""
    if not HAS_LOCKS:
        return True
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_FILE:
            return False
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            return False  # none of ours: they are empty
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):
            place.unlink()
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
