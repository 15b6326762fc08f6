"""The keys of a board: each has an end, and whatever else stands there harms nobody."""

import time

import pytest

from celeriac.servers.redis.broker import RedisBroker

LONG = 600.0


@pytest.fixture
async def board(redis_url, prefix):
    broker = RedisBroker(redis_url, key_prefix=prefix)
    yield broker.board
    await broker.close()


async def test_every_key_has_an_end(board, client, prefix):
    await board.sets.add("names", {"a": ["x"], "b": ["y"]}, LONG)
    await board.sets.add("names", {"a": ["z"]}, 10)
    await board.marks.put("key", "a", "1", LONG)
    await board.leases.hold("lead", "me", LONG)
    await board.windows.turn("line", 1, LONG)
    ends = {key.decode().removeprefix(prefix): client.ttl(key) for key in client.keys(f"{prefix}*")}
    assert ends == dict.fromkeys(
        [
            "celeriac.names.revision",
            "celeriac.names.a",
            "celeriac.names.b",
            "celeriac.mark.key",
            "celeriac.lease.lead",
            "celeriac.window.line",
        ],
        pytest.approx(LONG, abs=15),
    )


async def test_what_is_shortened_ends_with_its_key(board, client, prefix):
    for _ in range(2):
        await board.marks.shorten("key", 60)
        assert 0 < client.ttl(f"{prefix}celeriac.mark.key") <= 60
        await board.marks.put("key", "a", "1", LONG)
    assert await board.marks.remove("key", "a", "1")
    assert 0 < client.ttl(f"{prefix}celeriac.mark.key") <= 60


async def test_keys_of_the_wrong_type_are_set_aside_and_named_once(board, client, prefix, caplog):
    names = ["names.a", "names.revision", "mark.key", "lease.lead", "window.line"]
    for name in names:
        client.sadd(f"{prefix}celeriac.{name}", "text")
    for _ in range(2):
        await board.sets.add("names", {"a": ["x"]}, LONG)
        assert set((await board.sets.load("names", ["a"])).sets["a"]) == {"x"}
        assert await board.marks.put("key", "a", "1", LONG) == "1"
        assert await board.leases.hold("lead", "me", LONG)
        await board.leases.release("lead", "me")
        assert await board.windows.turn("line", 2, LONG) == 0
    for name in names:
        key = f"{prefix}celeriac.{name}"
        assert caplog.text.count(f"the key {key} of ") == 1
        (aside,) = client.keys(f"{key}.set-aside.*")
        assert client.smembers(aside) == {b"text"}


@pytest.mark.parametrize("revision", ["x", "9" * 5000, b"\xff", "-1", "nan"])
async def test_a_revision_that_is_no_number_is_none(board, client, prefix, revision):
    client.set(f"{prefix}celeriac.names.revision", revision)
    assert await board.sets.revision("names") == 0
    await board.sets.add("names", {"a": ["x"]}, LONG)
    assert await board.sets.revision("names") > 0
    assert client.ttl(f"{prefix}celeriac.names.revision") > 0


async def test_members_without_an_end_and_names_that_are_no_text(board, client, prefix):
    client.zadd(f"{prefix}celeriac.names.a", {"for ever": "inf", b"\xff": time.time() + LONG, "gone": "-inf"})
    assert set((await board.sets.load("names", ["a"])).sets["a"]) == {"for ever", "\ufffd"}
    await board.sets.add("names", {"a": ["x"]}, LONG)
    assert 0 < client.ttl(f"{prefix}celeriac.names.a") <= 2e9


async def test_a_lease_without_an_end_gets_one(board, client, prefix):
    client.set(f"{prefix}celeriac.lease.lead", b"\xff")
    assert not await board.leases.hold("lead", "me", LONG)
    assert 0 < client.ttl(f"{prefix}celeriac.lease.lead") <= LONG


@pytest.mark.parametrize("moment", ["x", "", "inf", "nan", "-inf", "9e15", b"\xff"])
async def test_moments_that_are_none_keep_nobody_waiting(board, client, prefix, moment):
    client.rpush(f"{prefix}celeriac.window.line", moment, moment)
    assert await board.windows.turn("line", 2, LONG) == 0


async def test_a_value_that_is_no_text_is_another(board, client, prefix):
    client.hset(f"{prefix}celeriac.mark.key", "a", b"\xff")
    assert await board.marks.put("key", "a", "1", LONG) == "\ufffd"
    assert client.ttl(f"{prefix}celeriac.mark.key") > 0
