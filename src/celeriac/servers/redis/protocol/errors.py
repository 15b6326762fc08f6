"""What a Redis answers instead of a value, and what a connection to it may meet."""

from __future__ import annotations


class Refused(Exception):
    """An answer that is an error; its text is the server's own, which begins with a code."""

    @property
    def code(self) -> str:
        """Return the first word, ``WRONGTYPE`` for example."""
        return str(self).partition(" ")[0]


class NotRedis(Exception):
    """What answers speaks another protocol."""


class NoMaster(Exception):
    """No sentinel names a master that works."""


class LinkDown(ConnectionError):
    """The connection was cut, or is closed."""
