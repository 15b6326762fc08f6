"""Whatever stands in the broker's own keys, a worker goes on with what is sound."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

import redis
from celeriac import Celeriac
from celeriac.wire.names import SEPARATOR
from tests.hostile.check import make_app, runs, until
from tests.hostile.texts import DEEP
from tests.servers import RedisServer

ENTRIES = [
    *("", "x", "null", "[]", "[1, 2, 3]", "[null, null, null]", '{"a": 1}', '"a', '["', '["{}","",""]'),
    *('["\\x", "", "q"]', '["\\ud800", "", "q"]', '["a", "", "q\\18"]', '["a", "", "\\uZZ"]', '[{}, "", ""]'),
    *(DEEP, '[{"a": ' + DEEP, '[{}, "", "\\ud800"]'),
]
"""Entries of ``unacked`` that lead to no message or to no queue."""

OURS = {
    **dict.fromkeys(["leases", "due", "served", "dead.index"], "zset"),
    **dict.fromkeys(["revoked.ids", "revoked.roots", "revoked.terminate"], "zset"),
    "dead": "hash",
}


class Place:
    """A queue on a Redis, under a prefix of its own."""

    def __init__(self, server: RedisServer, client: redis.Redis, queue: str, prefix: str) -> None:
        self.client = client
        self.queue = queue
        self.prefix = prefix
        self.url = f"{server.url()}?global_keyprefix={prefix}"
        self.app: Celeriac = make_app(self.url, queue, self.url)

    def key(self, name: str) -> str:
        return self.prefix + name

    def forge(self, tag: str, entry: str | bytes, since: float = 1.0) -> None:
        self.client.hset(self.key("unacked"), tag, entry)
        self.client.zadd(self.key("unacked_index"), {tag: since})

    async def is_settled(self) -> bool:
        return not self.client.exists(self.key("unacked"))

    async def dead(self) -> int:
        return await self.app.connections().broker.dead.count()


@pytest.fixture
def place(redis_server: RedisServer, unique: Callable[[str], str]) -> Iterator[Place]:
    with redis_server.client() as client:
        yield Place(redis_server, client, unique("queue"), unique("prefix") + ":")


def frame(**headers: object) -> str:
    headers = {"task": "ok", "id": "i", **headers}
    properties = {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "q"}}
    return json.dumps(
        {
            "body": "W1sxXSwge30sIHt9XQ==",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties,
        }
    )


async def test_entries_that_nobody_can_read_are_buried_and_said_once(
    place: Place, caplog: pytest.LogCaptureFixture
):
    for number, entry in enumerate(ENTRIES):
        place.forge(f"tag{number}", entry)
    place.forge("own key", '[{}, "", "unacked"]')
    place.forge("\udcff:²".encode(errors="surrogateescape"), "x")  # type: ignore[arg-type]
    async with place.app, place.app.worker():
        await until(place.is_settled)
        assert await runs(place.app)
        letters = await place.app.connections().broker.dead.list()
        assert len(letters) == len(ENTRIES) + 2
        assert all("could not be given back" in letter.reason for letter in letters)
        ids = [letter.id for letter in letters]
        assert await place.app.connections().broker.dead.retry(ids) == 0, "no queue is theirs"
        assert await place.app.connections().broker.dead.delete(ids) == len(ids)
    warnings = [record for record in caplog.records if "could not be given back" in record.getMessage()]
    assert len(warnings) == 1


async def test_keys_of_the_wrong_type_are_set_aside(place: Place, caplog: pytest.LogCaptureFixture):
    for name in OURS:
        place.client.set(place.key(f"celeriac.{name}"), "text")
    place.client.lpush(place.key("celeriac.revoked.revision"), "text")
    place.forge("odd", "nonsense")
    async with place.app, place.app.worker():
        assert await runs(place.app)
        revoked = await place.app.send_task("ok", [1], countdown=1)
        await revoked.cancel()
        later = await place.app.send_task("ok", [2], countdown=0.2)
        assert await later.wait(timeout=60) == 2
        await until(place.is_settled)
        assert await place.dead() == 1
    for name in ("leases", "due", "dead", "revoked.ids", "revoked.revision"):
        key = place.key(f"celeriac.{name}")
        assert caplog.text.count(f"the key {key} of ") == 1
        (aside,) = place.client.keys(f"{key}.set-aside.*")
        assert place.client.type(aside) in (b"string", b"list")


async def test_a_foreign_key_at_a_name_of_celerys_is_named_and_waited_for(
    place: Place, caplog: pytest.LogCaptureFixture
):
    async with place.app, place.app.worker():
        assert await runs(place.app)
        await until(place.is_settled)
        place.client.set(place.key("unacked"), "text")
        waiting = await place.app.send_task("ok", [3])

        async def is_said() -> bool:
            return f"the key {place.key('unacked')} of " in caplog.text

        await until(is_said)
        place.client.delete(place.key("unacked"))
        assert await waiting.wait(timeout=60) == 3
    assert caplog.text.count("rename or delete it") == 1


@pytest.mark.parametrize("revision", ["x", "9" * 5000, b"\xff"])
async def test_a_revision_that_is_no_number_is_none(place: Place, revision: str | bytes):
    place.client.set(place.key("celeriac.revoked.revision"), revision)
    async with place.app, place.app.worker():
        assert await runs(place.app)
        task = await place.app.send_task("ok", [1], countdown=0.3)
        await task.cancel()
        assert (await place.app.connections().revocations.load()).revision > 0


async def test_forged_terms_keep_no_message(place: Place):
    """A lease without end, a due time that never was: what they are about comes back."""
    place.forge("nobody.000000000001:0", f'[{frame(id="forged")}, "", "{place.queue}"]', time.time() + 9e9)
    place.client.zadd(place.key("celeriac.leases"), {"nobody.000000000001:0": "inf", "ghost": "-inf"})
    for tag, due in {"parked:0": "-inf", "parked-ghost": 1, "parked-never": "inf"}.items():
        place.client.zadd(place.key("celeriac.due"), {tag: due})
    place.forge("parked:0", '["\\x", "", "q"]')
    async with place.app, place.app.worker():
        assert await place.app.result("forged").wait(timeout=60) == 1
        await until(place.is_settled)
        assert await place.dead() == 1


@pytest.mark.parametrize("count", [-5, True, 10**30, "3", 2.5, None, [], {}])
async def test_counts_that_are_none_are_not_believed(place: Place, count: object):
    place.client.lpush(place.key(place.queue), frame(**{"x-celeriac-deliveries": count}))
    async with place.app, place.app.connections().broker.subscribe([place.queue]) as subscription:
        (delivery,) = await subscription.take(1)
        assert delivery.deliveries == 1
        await delivery.receipt.ack()


async def test_a_binding_costs_no_time_whatever_its_pattern(place: Place):
    members = ["a.*|^(a+)+$|one".replace("|", SEPARATOR), "#|a{99999999999}|all".replace("|", SEPARATOR)]
    place.client.sadd(place.key("_kombu.binding.ex"), *members)
    place.forge("celery", f'[{frame()}, "ex", "{"a" * 40}!"]')
    async with place.app, place.app.worker():
        await until(place.is_settled)
        assert await runs(place.app)
    assert place.client.llen(place.key("all")) == 1
