"""Queues and results in this process, for tests."""

from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.results import MemoryBackend

__all__ = ["MemoryBackend", "MemoryBroker"]
