"""Queues in one SQLite file, for the processes of one machine. Needs SQLite 3.35 or newer."""

from celeriac.brokers.sqlite.broker import SqliteBroker

__all__ = ["SqliteBroker"]
