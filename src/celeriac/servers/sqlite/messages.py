"""The messages of a SQLite broker: the statements, and the operations that run them inside one transaction.

Rules: everything here runs in the link's thread, on the connection it is given, in the transaction of its caller. A
message that is taken belongs to an *owner* (see ``owners``); when the owner is dead, the next process that looks puts
its messages back. The next message of a queue is the one with the lowest priority number, then the one published
first, so a message that comes back is ahead of those that were never taken. Frames of a batch go in and out as one
joined blob beside a JSON list of facts: each step of a statement gives the interpreter lock away, and a busy event
loop gives it back only after milliseconds, so a batch takes one step. A column holds whatever was written to it: a
value that is not of our form counts as missing: a count as 0, a due time as past, an owner as dead.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.set_aside import Cap
from celeriac.errors import DeliveryLost
from celeriac.servers.queue_rows import (
    AHEAD_BYTES,
    DeadMessage,
    NewMessage,
    Settlement,
    TakenMessage,
    Verb,
    lost_delivery,
    split_by_size,
)
from celeriac.servers.sqlite.owners import Owners
from celeriac.servers.sqlite.reading import column, scalar
from celeriac.wire.frame import MOST_DELIVERIES
from celeriac.wire.once import ONCE, ONCE_SETTLED

LAST_MOMENT = 253402300799
"""Seconds since the epoch of the last moment that has a date."""

_FORMS = {
    "count": f"CASE WHEN typeof(deliveries) = 'integer' AND deliveries BETWEEN 0 AND {MOST_DELIVERIES}"
    " THEN deliveries ELSE 0 END",
    "priority": "CASE typeof(priority) WHEN 'integer' THEN priority ELSE 0 END",
    # Of a blob, which all of ours are, the length is known without reading it.
    "size": "CASE typeof(frame) WHEN 'blob' THEN length(frame) ELSE length(CAST(coalesce(frame, '') AS BLOB)) END",
    "frame": "CAST(coalesce(frame, '') AS BLOB)",
    "queue": "CAST(queue AS TEXT)",
    "died": f"CASE WHEN died_at BETWEEN 0 AND {LAST_MOMENT} THEN died_at ELSE 0.0 END",
}
"""Columns of messages, each as a value of our form whatever it holds."""


def in_form(statement: str) -> str:
    """Return a statement, with columns in our form for their names in braces."""
    return statement.format_map(_FORMS)


_DECLARE = "INSERT OR IGNORE INTO celeriac_queue (name) SELECT value FROM json_each(:names)"
_SEE_QUEUES = in_form(
    "SELECT CAST(name AS TEXT) FROM celeriac_queue UNION SELECT {queue} FROM celeriac_message ORDER BY 1"
)

_ADD = """
    INSERT INTO celeriac_message (queue, priority, due_at, frame)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
           substr(:frames, json_extract(value, '$[3]'), json_extract(value, '$[4]'))
    FROM json_each(:facts)"""

_DROP_ONCE = "DELETE FROM celeriac_once WHERE expires < :now"
_FORGET_ONCE = "UPDATE celeriac_once SET expires = :expires WHERE key = :key"
_NOTE_ONCE = "INSERT OR IGNORE INTO celeriac_once (key, expires) VALUES (:key, :expires)"

_SEE_LINE = in_form("""
    SELECT json_group_array(json_array(priority, id, size)) FROM (
        SELECT {priority} AS priority, id, {size} AS size FROM celeriac_message AS message
        WHERE queue = :queue AND owner IS NULL AND due_at IS NULL
        ORDER BY message.priority, id LIMIT :limit)""")
_COUNT_LINE = (
    "SELECT count(*) FROM celeriac_message WHERE queue = :queue AND owner IS NULL AND due_at IS NULL"
)
_DELETE_LINE = "DELETE FROM celeriac_message WHERE queue = :queue AND owner IS NULL AND due_at IS NULL"

_READ = in_form("""
    SELECT json_group_array(json_array({priority}, id, {queue}, redelivered IS 1, {count}, {size})),
           CAST(group_concat(coalesce(frame, ''), '') AS BLOB)
    FROM celeriac_message WHERE id IN (SELECT value FROM json_each(:ids))""")
_TAKE = "UPDATE celeriac_message SET owner = :self WHERE id IN (SELECT value FROM json_each(:ids))"

# "+owner" keeps SQLite from walking all that the owner holds when it can look up the ids.
_SEE_HELD = (
    "SELECT json_group_array(id) FROM celeriac_message"
    " WHERE +owner = :self AND id IN (SELECT value FROM json_each(:ids))"
)
_DELETE = "DELETE FROM celeriac_message WHERE id IN (SELECT value FROM json_each(:ids))"
_GIVE_BACK = "UPDATE celeriac_message SET owner = NULL, redelivered = 1 WHERE id IN (SELECT value FROM json_each(:ids))"
_RETURN = "UPDATE celeriac_message SET owner = NULL WHERE id IN (SELECT value FROM json_each(:ids))"
_PARK = """
    UPDATE celeriac_message SET owner = NULL, due_at = json_extract(fact.value, '$[1]')
    FROM json_each(:facts) AS fact WHERE celeriac_message.id = json_extract(fact.value, '$[0]')"""
_BURY = in_form("""
    INSERT INTO celeriac_dead (queue, priority, reason, died_at, frame)
    SELECT {queue}, {priority}, json_extract(fact.value, '$[1]'), :now, {frame}
    FROM json_each(:facts) AS fact JOIN celeriac_message AS message ON message.id = json_extract(fact.value, '$[0]')""")

_KEEP_FAILED = in_form("""
    INSERT OR REPLACE INTO celeriac_failed (task, queue, priority, reason, died_at, frame)
    SELECT json_extract(fact.value, '$[1].id'), {queue}, {priority}, json_extract(fact.value, '$[1].reason'), :now,
           {frame}
    FROM json_each(:facts) AS fact JOIN celeriac_message AS message ON message.id = json_extract(fact.value, '$[0]')""")
_TRIM_FAILED = """
    DELETE FROM celeriac_failed WHERE died_at < :since
        OR id <= (SELECT id FROM celeriac_failed ORDER BY id DESC LIMIT 1 OFFSET :most)"""

# Greater than every number are a text and a blob.
_COME_DUE = in_form(
    "UPDATE celeriac_message SET due_at = NULL WHERE due_at <= :now OR due_at > 9e999 RETURNING {queue}"
)
_NEXT_DUE = "SELECT min(due_at) FROM celeriac_message WHERE due_at IS NOT NULL"

_RECOVER = in_form("""
    UPDATE celeriac_message SET owner = NULL, redelivered = 1, deliveries = 1 + {count}
    WHERE owner IN (SELECT value FROM json_each(:ids)) RETURNING {queue}""")
_RECOVER_UNOWNED = in_form("""
    UPDATE celeriac_message SET owner = NULL, redelivered = 1, deliveries = 1 + {count}
    WHERE owner IS NOT NULL AND typeof(owner) <> 'integer' RETURNING {queue}""")
# One step of the index for each owner, however many messages it holds.
_SEE_OWNERS = """
    WITH RECURSIVE holding (id) AS (
        SELECT min(owner) FROM celeriac_message WHERE owner IS NOT NULL
        UNION ALL
        SELECT (SELECT min(owner) FROM celeriac_message WHERE owner > holding.id) FROM holding WHERE id IS NOT NULL)
    SELECT id FROM holding WHERE id IS NOT NULL"""
_RELEASE = in_form(
    "UPDATE celeriac_message SET owner = NULL, redelivered = 1 WHERE owner = :self RETURNING {queue}"
)

_SEE_DEAD = in_form("""
    SELECT id, {queue}, CAST(reason AS TEXT),
           {died}, {frame}
    FROM celeriac_dead ORDER BY id LIMIT :limit OFFSET :offset""")
_COUNT_DEAD = "SELECT count(*) FROM celeriac_dead"
_REVIVE = in_form("""
    INSERT INTO celeriac_message (queue, priority, frame) SELECT {queue}, {priority}, {frame}
    FROM celeriac_dead WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id RETURNING {queue}""")
_DELETE_DEAD = "DELETE FROM celeriac_dead WHERE id IN (SELECT value FROM json_each(:ids))"

_BY_DETAIL = {"park": _PARK, "bury": _BURY, "fail": _KEEP_FAILED}
_BY_ID = {"ack": _DELETE, "requeue": _GIVE_BACK, "return": _RETURN, "bury": _DELETE, "fail": _DELETE}
"""For each verb of a settlement, the statement that takes only the ids of the messages."""


class _Place(msgspec.Struct, array_like=True):
    """Where a waiting message stands in its line."""

    priority: int
    id: int
    size: int


class _Fact(msgspec.Struct, array_like=True):
    """A message without its frame."""

    priority: int
    id: int
    queue: str
    redelivered: int
    deliveries: int
    size: int


_write_bytes = msgspec.json.Encoder().encode
_read_places = msgspec.json.Decoder(list[_Place]).decode
_read_facts = msgspec.json.Decoder(list[_Fact]).decode
_read_ids = msgspec.json.Decoder(list[int]).decode


class SqliteMessages:
    """What one process does with the messages of a file.

    :param owners: the owners of taken messages.
    :param cap: how much the failed list keeps.
    :param batch: bytes that one take returns, unless the first message alone has more.
    """

    def __init__(self, clock: Clock, owners: Owners, cap: Cap, batch: int) -> None:
        self._clock = clock
        self._batch = batch
        self._cap = cap
        self._owners = owners

    def declare(self, connection: sqlite3.Connection, queues: Collection[str]) -> None:
        """Make the queues known."""
        connection.execute(_DECLARE, {"names": as_json(sorted(queues))})

    def queues(self, connection: sqlite3.Connection) -> list[str]:
        """Return the names of all queues that are known, sorted."""
        return sorted(column(connection, _SEE_QUEUES))

    def add(self, connection: sqlite3.Connection, messages: Sequence[NewMessage]) -> None:
        """Append the messages to their queues, in order."""
        for batch in split_by_size(messages):
            facts: list[tuple[str, int, float | None, int, int]] = []
            start = 1
            for message in batch:
                facts.append((message.queue, message.priority, message.due, start, len(message.frame)))
                start += len(message.frame)
            frames = b"".join([message.frame for message in batch])
            connection.execute(_ADD, {"facts": as_json(facts), "frames": frames})

    def note_once(self, connection: sqlite3.Connection, key: str) -> bool:
        """Note that something is published under this key; return whether it is the first time."""
        now = self._clock.now()
        connection.execute(_DROP_ONCE, {"now": now})
        return connection.execute(_NOTE_ONCE, {"key": key, "expires": now + ONCE}).rowcount == 1

    def forget_once(self, connection: sqlite3.Connection, keys: Sequence[str]) -> None:
        """Keep these keys for a short time only."""
        expires = self._clock.now() + ONCE_SETTLED
        connection.executemany(_FORGET_ONCE, [{"key": key, "expires": expires} for key in keys])

    def take(
        self, connection: sqlite3.Connection, queues: Sequence[str], now: int, ahead: int = 0
    ) -> list[TakenMessage]:
        """Take messages; among equal priorities the queues take turns, the first of them first.

        :param now: how many can start now.
        :param ahead: how many more may be taken, as long as all of these have no more than ``AHEAD_BYTES``.
        """
        places = self._choose(connection, queues, now, ahead)
        if not places:
            return []
        owner = self._owners.hold()
        ids = as_json([place.id for place in places])
        facts, frames = _one(connection, _READ, {"ids": ids})
        connection.execute(_TAKE, {"self": owner, "ids": ids})
        taken = {
            fact.id: TakenMessage(fact.id, owner, fact.queue, bool(fact.redelivered), fact.deliveries, frame)
            for fact, frame in _cut(_read_facts(facts), frames)
        }
        return [taken[place.id] for place in places]

    def settle(
        self, connection: sqlite3.Connection, settlements: Sequence[Settlement]
    ) -> list[DeliveryLost | None]:
        """Settle what is still held; answer ``DeliveryLost`` for the rest."""
        held = self.held(connection, settlements)
        self.apply(connection, [one for one, is_held in zip(settlements, held, strict=True) if is_held])
        return [
            None if is_held else lost_delivery(one) for one, is_held in zip(settlements, held, strict=True)
        ]

    def held(self, connection: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[bool]:
        """Return of each message whether it is still held; of two settlements of one message the first holds it."""
        asked: dict[int, list[int]] = {}
        for settlement in settlements:
            asked.setdefault(settlement.owner, []).append(settlement.id)
        held = {owner: self._still_held(connection, owner, ids) for owner, ids in asked.items()}
        answers: list[bool] = []
        for settlement in settlements:
            answers.append(settlement.id in held[settlement.owner])
            held[settlement.owner].discard(settlement.id)
        return answers

    def apply(self, connection: sqlite3.Connection, settlements: Sequence[Settlement]) -> None:
        """Settle messages that are held."""
        verbs: dict[Verb, list[Settlement]] = {}
        for settlement in settlements:
            verbs.setdefault(settlement.verb, []).append(settlement)
        for verb, group in verbs.items():
            self._apply(connection, verb, group)

    def revive(self, connection: sqlite3.Connection) -> list[str]:
        """Put back what came due and what dead owners held; return the queues that got something."""
        now = self._clock.now()
        queues = column(connection, _COME_DUE, {"now": now})
        if self._owners.is_time_to_look():
            queues += self._recover(connection)
        return queues

    def next_revival(self, connection: sqlite3.Connection) -> float | None:
        """Return when ``revive`` may have something to do, in seconds since the epoch."""
        due: float | None = scalar(connection, _NEXT_DUE)
        if all(owner == self._owners.own for owner in column(connection, _SEE_OWNERS)):
            return due
        look = self._owners.next_look()
        return look if due is None else min(look, due)

    def release(self, connection: sqlite3.Connection) -> list[str]:
        """Give back everything that this process holds; return the queues it goes to."""
        if self._owners.own is None:
            return []
        return column(connection, _RELEASE, {"self": self._owners.own})

    def depth(self, connection: sqlite3.Connection, queue: str) -> int:
        """Count the waiting messages."""
        return int(scalar(connection, _COUNT_LINE, {"queue": queue}))

    def peek(self, connection: sqlite3.Connection, queue: str, limit: int) -> list[TakenMessage]:
        """Read the next messages without taking them."""
        places = self._choose(connection, [queue], limit, 0)
        facts, frames = _one(connection, _READ, {"ids": as_json([place.id for place in places])})
        found = sorted(
            _cut(_read_facts(facts), frames or b""), key=lambda pair: (pair[0].priority, pair[0].id)
        )
        return [
            TakenMessage(fact.id, 0, queue, bool(fact.redelivered), fact.deliveries, frame)
            for fact, frame in found
        ]

    def purge(self, connection: sqlite3.Connection, queue: str) -> int:
        """Delete the waiting messages; return how many there were."""
        return connection.execute(_DELETE_LINE, {"queue": queue}).rowcount

    def dead(self, connection: sqlite3.Connection, limit: int, offset: int) -> list[DeadMessage]:
        """Read the dead-letter list, oldest first."""
        rows = connection.execute(_SEE_DEAD, {"limit": limit, "offset": offset})
        return [DeadMessage(*row) for row in rows]

    def count_dead(self, connection: sqlite3.Connection) -> int:
        """Count the dead-letter list."""
        return int(scalar(connection, _COUNT_DEAD))

    def retry_dead(self, connection: sqlite3.Connection, ids: Sequence[int]) -> list[str]:
        """Put the dead messages back; return their queues, one for each."""
        queues = column(connection, _REVIVE, {"ids": as_json(ids)})
        self.delete_dead(connection, ids)
        return queues

    def delete_dead(self, connection: sqlite3.Connection, ids: Sequence[int]) -> int:
        """Delete the dead messages; return how many there were."""
        return connection.execute(_DELETE_DEAD, {"ids": as_json(ids)}).rowcount

    def trim_failed(self, connection: sqlite3.Connection) -> None:
        """Drop from the failed list what is too much or too old."""
        since = self._clock.now() - self._cap.seconds
        connection.execute(_TRIM_FAILED, {"since": since, "most": self._cap.most})

    def _recover(self, connection: sqlite3.Connection) -> list[str]:
        """Put back the messages of dead owners; return the queues that got some."""
        owners = column(connection, _SEE_OWNERS)
        numbers = [owner for owner in owners if isinstance(owner, int)]
        queues: list[str] = []
        if len(numbers) < len(owners):
            queues += column(connection, _RECOVER_UNOWNED)
        dead = self._owners.dead_among(numbers)
        if dead:
            queues += column(connection, _RECOVER, {"ids": as_json(dead)})
        return queues

    def _choose(
        self, connection: sqlite3.Connection, queues: Sequence[str], now: int, ahead: int
    ) -> list[_Place]:
        facts = {"limit": now + ahead}
        lines = [
            deque(_read_places(scalar(connection, _SEE_LINE, {"queue": queue, **facts}))) for queue in queues
        ]
        chosen: list[_Place] = []
        size = size_ahead = 0
        for place in islice(_take_turns(lines), now + ahead):
            size += place.size
            size_ahead += place.size if len(chosen) >= now else 0
            if (chosen and size > self._batch) or size_ahead > AHEAD_BYTES:
                break
            chosen.append(place)
        return chosen

    def _still_held(self, connection: sqlite3.Connection, owner: int, ids: list[int]) -> set[int]:
        found = scalar(connection, _SEE_HELD, {"self": owner, "ids": as_json(ids)})
        return set(_read_ids(found))

    def _apply(self, connection: sqlite3.Connection, verb: Verb, settlements: Sequence[Settlement]) -> None:
        if verb in _BY_DETAIL:
            facts = as_json([(settlement.id, settlement.detail) for settlement in settlements])
            connection.execute(_BY_DETAIL[verb], {"facts": facts, "now": self._clock.now()})
        if verb in _BY_ID:
            connection.execute(_BY_ID[verb], {"ids": as_json([settlement.id for settlement in settlements])})
        if verb == "fail":
            self.trim_failed(connection)


def as_json(value: object) -> str:
    """Return the JSON that a statement takes a list or table as."""
    return _write_bytes(value).decode()


def _one(connection: sqlite3.Connection, statement: str, values: dict[str, object]) -> tuple[str, bytes]:
    facts, frames = connection.execute(statement, values).fetchone()
    return facts, frames


def _cut(facts: Sequence[_Fact], frames: bytes) -> Iterator[tuple[_Fact, bytes]]:
    start = 0
    for fact in facts:
        yield fact, frames[start : start + fact.size]
        start += fact.size


def _take_turns(lines: list[deque[_Place]]) -> Iterator[_Place]:
    """Yield by priority over all the lines; among equals, one of each line in turn."""
    turns = deque(line for line in lines if line)
    while len(turns) > 1:
        line = min(turns, key=lambda line: line[0].priority)
        turns.remove(line)
        yield line.popleft()
        if line:
            turns.append(line)
    for line in turns:
        yield from line
