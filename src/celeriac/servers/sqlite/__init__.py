"""Queues and results in one SQLite file, for the processes of one machine. Needs SQLite 3.35 or newer."""

from celeriac.servers.sqlite.broker import SqliteBroker
from celeriac.servers.sqlite.results import SqlBackend

__all__ = ["SqlBackend", "SqliteBroker"]
