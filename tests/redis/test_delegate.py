"""What a child process does at Redis for its worker: it stores results and acknowledges a message in one step."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.contracts.backend import EncodedResult
from celeriac.contracts.server import NotStored
from celeriac.servers.redis.delegate import Places, RedisDelegate
from celeriac.servers.redis.renewal import Refused
from celeriac.wire.result import FAILURE, SUCCESS, ResultRecord
from tests.servers import RedisServer

KEYS = ("unacked", "unacked_index", "celeriac.leases")


@pytest.fixture
def redis(own_redis: RedisServer) -> Iterator[Any]:
    """A client of a Redis in which a worker holds one message."""
    client = own_redis.client()
    client.hset(KEYS[0], "tag", "message")
    client.zadd(KEYS[1], {"tag": 1})
    client.zadd(KEYS[2], {"tag": 1})
    yield client
    client.config_set("maxmemory", 0)


@pytest.fixture
def delegate(own_redis: RedisServer) -> Iterator[RedisDelegate]:
    place = {"addresses": [["127.0.0.1", own_redis.port]], "greeting": [], "timeout": 1.0}
    made = RedisDelegate(place, Places(KEYS, "celery-task-meta-", (0, 1), 60_000))
    made = pickle.loads(pickle.dumps(made))
    yield made
    made.close()


def result(task_id: str, payload: bytes, status: str = SUCCESS) -> EncodedResult:
    return EncodedResult(ResultRecord(task_id=task_id, status=status), payload)


def held(client: Any) -> list[int]:
    return [client.hlen(KEYS[0]), client.zcard(KEYS[1]), client.zcard(KEYS[2])]


def test_it_acknowledges_once(redis: Any, delegate: RedisDelegate):
    assert delegate.acknowledge("tag")
    assert held(redis) == [0, 0, 0]
    assert not delegate.acknowledge("tag"), "it was lost before"


def test_results_go_along(redis: Any, delegate: RedisDelegate, own_redis: RedisServer):
    payloads = {"a": b'{"status": "SUCCESS"}', "\u00e4": b"\x80\r\n\xff"}
    assert delegate.acknowledge("tag", [result(*pair) for pair in payloads.items()])
    assert held(redis) == [0, 0, 0]
    results = own_redis.client(1)
    assert {name: results.get(f"celery-task-meta-{name}") for name in payloads} == payloads
    assert 0 < results.pttl("celery-task-meta-a") <= 60_000
    assert not redis.exists("celery-task-meta-a"), "the broker's database has none"


def test_results_are_stored_alone_and_beside_a_lost_message(
    redis: Any, delegate: RedisDelegate, own_redis: RedisServer
):
    assert delegate.acknowledge("", [result("a", b"1")])
    assert held(redis) == [1, 1, 1]
    assert not delegate.acknowledge("other", [result("b", b"2")])
    assert held(redis) == [1, 1, 1]
    assert own_redis.client(1).mget("celery-task-meta-a", "celery-task-meta-b") == [b"1", b"2"]


def test_a_stored_success_stays(redis: Any, delegate: RedisDelegate, own_redis: RedisServer):
    delegate.acknowledge("", [result("a", b'{"status": "SUCCESS"}')])
    delegate.acknowledge("", [result("a", b'{"status": "FAILURE"}', FAILURE)])
    assert own_redis.client(1).get("celery-task-meta-a") == b'{"status": "SUCCESS"}'


def test_what_is_refused_acknowledges_nothing(redis: Any, delegate: RedisDelegate):
    redis.config_set("maxmemory", 1)
    with pytest.raises((NotStored, Refused)):
        delegate.acknowledge("tag", [result("a", b"1")])
    assert held(redis) == [1, 1, 1]


def test_a_redis_that_does_not_answer_is_not_waited_for_without_end(redis: Any, delegate: RedisDelegate):
    redis.client_pause(10_000)
    try:
        with pytest.raises(TimeoutError):
            delegate.acknowledge("tag")
    finally:
        redis.client_unpause()
    assert delegate.acknowledge("tag"), "over a new connection"
