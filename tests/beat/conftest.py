"""Fixtures: a place for an app on each kind of broker."""

import pytest

from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.results import MemoryBackend
from celeriac.wire.content import Codecs
from tests.beat.places import KINDS, SHARED, Place


def make_place(kind, request, unique, tmp_path):
    name = unique("beat")
    if kind == "memory":
        return Place(name, MemoryBroker(), MemoryBackend(Codecs()))
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/{name}.db"
        return Place(name, url, url)
    if kind == "postgres":
        url = request.getfixturevalue("postgres_url")
        return Place(name, url, url)
    redis = request.getfixturevalue("redis_url")
    if kind == "redis":
        return Place(name, redis, redis)
    rabbit = request.getfixturevalue("rabbit_url")
    return Place(name, rabbit, redis if kind == "rabbitmq+redis" else "rpc://")


@pytest.fixture(params=KINDS)
def place(request, unique, tmp_path):
    """A place on each kind of broker."""
    return make_place(request.param, request, unique, tmp_path)


@pytest.fixture(params=SHARED)
def shared(request, unique, tmp_path):
    """A place that several processes share, and that keeps slots."""
    return make_place(request.param, request, unique, tmp_path)


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def stored(request, unique, tmp_path):
    """A place that keeps slots and messages on one server."""
    return make_place(request.param, request, unique, tmp_path)
