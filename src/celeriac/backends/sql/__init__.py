"""The result store in SQL tables."""

from celeriac.backends.sql.backend import SqlBackend

__all__ = ["SqlBackend"]
