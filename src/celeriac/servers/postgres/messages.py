"""The statements about messages.

Rules: a take chooses its messages in a subselect that is computed once, and updates them by their ids: PostgreSQL
then cannot choose more than the limit, nor walk over the table for each. A take begins where the last one of the same
queue and priority began (its floor), because what lies before is mostly gone, but not yet vacuumed. The clock that
counts is the server's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import inf
from typing import Any

from celeriac.contracts.board import REVOKED
from celeriac.contracts.set_aside import Cap, Failed
from celeriac.errors import CeleriacError
from celeriac.quantities import LONGEST
from celeriac.servers.postgres.arrays import without_nulls
from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.sleeping import FALL_ASLEEP, WAKE
from celeriac.servers.queue_rows import AHEAD_BYTES, BATCH_BYTES, NewMessage, Settlement, TakenMessage
from celeriac.wire.frame import MOST_DELIVERIES
from celeriac.wire.names import HIGHEST_PRIORITY

Due = tuple[str, float | None]
"""A queue, and when a message for it is due, ``None`` where that is now."""

SOON = 2.0
"""Seconds ahead of which a message is due so soon that sleepers must be told."""

_GIVEN = (
    "unnest($1::text[], $2::smallint[], $3::float8[], $4::bytea[]) AS given (queue, priority, due_at, frame)"
)

_COUNTED = f"CASE WHEN deliveries BETWEEN 0 AND {MOST_DELIVERIES} THEN deliveries ELSE 0 END"
"""A count that may be ours; another would fail the statement that adds to it, and so every message beside it."""

_MOST_OWNERS = 2000
"""Owners that one look tries the locks of: the server has room for some thousand locks."""

_EXPIRED = f"(expires < {NOW} OR expires > {NOW} + {LONGEST})"
"""A row of an owner that is not renewed any more, or was never ours."""

_LATER = f"CASE WHEN due_at > {NOW} THEN due_at END"

# Sleeping subscriptions look for parked messages before long, so these wake none. The queues to wake are given once
# each, so that the arrays of many messages are not read a second time for that.
ADD = f"""
    WITH added AS (
        INSERT INTO celeriac_message (queue, priority, due_at, frame)
        SELECT queue, priority, {_LATER}, frame FROM {_GIVEN}),
    known AS (
        INSERT INTO celeriac_queue (name) SELECT unnest($5::text[]) ON CONFLICT DO NOTHING)
    {
    WAKE.format(
        queues=f'''(SELECT queue FROM unnest($6::text[], $7::float8[]) AS given (queue, due_at)
                    WHERE due_at IS NULL OR due_at < {NOW} + {SOON})'''
    )
}"""

# One message, of a queue that is known: arrays of one value each cost about half as much again.
ADD_ONE = f"""
    WITH added AS (
        INSERT INTO celeriac_message (queue, priority, due_at, frame)
        VALUES ($1::text, $2::smallint, CASE WHEN $3::float8 > {NOW} THEN $3::float8 END, $4::bytea))
    SELECT pg_notify($5, '') FROM (
        SELECT FROM celeriac_sleeper WHERE queue = $1 AND until > {NOW} LIMIT 1) AS sleeping
    WHERE $3 IS NULL OR $3 < {NOW} + {SOON}"""

DECLARE = "INSERT INTO celeriac_queue (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
QUEUES = "SELECT name FROM celeriac_queue UNION SELECT DISTINCT queue FROM celeriac_message"

# The plan is kept, and may have been made when the table was empty: rows are compared whole, and sorted so, which the
# index of what waits alone can do. By the single columns PostgreSQL may walk over all ids, of whatever queue.
TAKE = f"""
    WITH found AS MATERIALIZED (
        SELECT message.id, message.size
        FROM unnest($2::text[], $3::smallint[], $4::bigint[]) AS place (queue, priority, floor)
        CROSS JOIN LATERAL (
            SELECT id, octet_length(frame) AS size FROM celeriac_message
            WHERE (queue, priority, id) >= (place.queue, place.priority, place.floor)
              AND (queue, priority, id) <= (place.queue, place.priority, {2**63 - 1})
              AND owner IS NULL AND due_at IS NULL
            ORDER BY queue, priority, id LIMIT $5 FOR UPDATE SKIP LOCKED) AS message
        LIMIT $5),
    counted AS (
        SELECT id, row_number() OVER line AS number, sum(size) OVER line AS bytes
        FROM found WINDOW line AS (ROWS UNBOUNDED PRECEDING)),
    started AS (SELECT coalesce(max(bytes), 0) AS bytes FROM counted WHERE number <= $6),
    chosen AS (
        SELECT id FROM counted
        WHERE bytes - (SELECT bytes FROM started) <= {AHEAD_BYTES} AND (number = 1 OR bytes <= {BATCH_BYTES}))
    UPDATE celeriac_message SET owner = $1 WHERE id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING id, queue, priority, redelivered, {_COUNTED} AS deliveries, frame, (SELECT {NOW}) AS now,
              (SELECT number FROM celeriac_revision WHERE name = '{REVOKED}') AS revision,
              (SELECT count(*) FROM counted) AS found"""

# What there is to do besides taking: parked messages that are due, owners that may have died, messages that wait.
# A subscription that goes on sleeping renews its row in the same statement. The plan is kept: what is looked for is
# always the first in the order of an index, which needs no other plan when there is much.
LOOK = f"""
    WITH asleep AS ({FALL_ASLEEP.format(queues=4, process=5, channels=6)})
    SELECT {NOW} AS now,
           (SELECT due_at FROM celeriac_message WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1) AS due,
           ARRAY(SELECT id FROM (SELECT id FROM celeriac_owner WHERE id <> $1 AND expires IS NULL
                                 ORDER BY id LIMIT {_MOST_OWNERS}) AS known
                 WHERE pg_try_advisory_xact_lock_shared($2, id)) AS unlocked,
           ARRAY(SELECT id FROM celeriac_owner WHERE {_EXPIRED} LIMIT {_MOST_OWNERS}) AS expired,
           date_part('epoch', clock_timestamp() - pg_postmaster_start_time()) AS up,
           EXISTS (SELECT FROM unnest($3::text[]) AS place (queue) CROSS JOIN LATERAL (
                       SELECT FROM celeriac_message
                       WHERE queue = place.queue AND owner IS NULL AND due_at IS NULL
                       ORDER BY priority, id LIMIT 1) AS first) AS waiting"""

COME_DUE = f"""
    WITH due AS (
        UPDATE celeriac_message SET due_at = NULL WHERE id = ANY(ARRAY(
            SELECT id FROM celeriac_message WHERE due_at <= {NOW} ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
            || ARRAY(SELECT id FROM celeriac_message WHERE due_at = 'NaN' LIMIT 1000 FOR UPDATE SKIP LOCKED))
        RETURNING queue)
    SELECT queue FROM (SELECT DISTINCT queue FROM due) AS changed
    UNION ALL SELECT NULL FROM ({WAKE.format(queues="(SELECT queue FROM due)")}) AS woken"""

# The lock keeps the owner, if it lives after all, from going on under this number until it can see that it is gone.
RECOVER = f"""
    WITH dead AS MATERIALIZED (
        SELECT id FROM unnest($1::integer[]) AS given (id) WHERE pg_try_advisory_xact_lock($2, id)),
    gone AS (
        DELETE FROM celeriac_owner WHERE id IN (SELECT id FROM dead) AND (expires IS NULL OR {_EXPIRED})
        RETURNING id),
    freed AS (
        UPDATE celeriac_message SET owner = NULL, redelivered = true, deliveries = 1 + {_COUNTED}
        WHERE owner IN (SELECT id FROM gone) RETURNING queue)
    SELECT queue FROM (SELECT DISTINCT queue FROM freed) AS changed
    UNION ALL SELECT NULL FROM ({WAKE.format(queues="(SELECT queue FROM freed)")}) AS woken"""

# A take may have been on its way while its owner was taken for dead.
RECOVER_UNOWNED = f"""
    WITH freed AS (
        UPDATE celeriac_message SET owner = NULL, redelivered = true, deliveries = 1 + {_COUNTED}
        WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM celeriac_owner) RETURNING queue)
    SELECT queue FROM (SELECT DISTINCT queue FROM freed) AS changed
    UNION ALL SELECT NULL FROM ({WAKE.format(queues="(SELECT queue FROM freed)")}) AS woken"""

RELEASE = f"""
    WITH freed AS (
        UPDATE celeriac_message SET owner = NULL, redelivered = true WHERE owner = $1 RETURNING queue)
    SELECT queue FROM (SELECT DISTINCT queue FROM freed) AS changed
    UNION ALL SELECT NULL FROM ({WAKE.format(queues="(SELECT queue FROM freed)")}) AS woken"""

# What was taken without an answer was never handed out, so it goes back as it was.
FREE_STRAYS = f"""
    WITH freed AS (
        UPDATE celeriac_message SET owner = NULL WHERE owner = $1 AND id <> ALL($2::bigint[]) RETURNING queue)
    SELECT queue FROM (SELECT DISTINCT queue FROM freed) AS changed
    UNION ALL SELECT NULL FROM ({WAKE.format(queues="(SELECT queue FROM freed)")}) AS woken"""

# Settlements of one owner. It is not compared by "=": of a table that seems empty PostgreSQL would walk over the whole
# index of owners, which has all that ever was in it until a vacuum.
_MINE = "message.id = ANY($1::bigint[]) AND message.owner IS NOT DISTINCT FROM $2::integer"
_HELD = f"unnest($1::bigint[]{{more}}) AS given (id{{names}}) WHERE {_MINE} AND message.id = given.id"

ACK = f"DELETE FROM celeriac_message AS message WHERE {_MINE} RETURNING message.id"
_GIVE_BACK = f"""
    WITH given_back AS (
        UPDATE celeriac_message AS message SET owner = NULL{{more}} WHERE {_MINE} RETURNING message.id, queue)
    SELECT id FROM given_back
    UNION ALL SELECT NULL FROM ({WAKE.format(queues="(SELECT queue FROM given_back)")}) AS woken"""
PARK = f"""
    WITH parked AS (
        UPDATE celeriac_message AS message SET owner = NULL, due_at = CASE WHEN given.due_at > {
    NOW
} THEN given.due_at END
        FROM {_HELD.format(more=", $3::float8[]", names=", due_at")}
        RETURNING message.id, queue, given.due_at)
    SELECT id FROM parked
    UNION ALL SELECT NULL FROM ({
    WAKE.format(queues=f"(SELECT queue FROM parked WHERE due_at < {NOW} + {SOON})")
}) AS woken"""
BURY = f"""
    WITH gone AS (
        DELETE FROM celeriac_message AS message
        USING {_HELD.format(more=", $3::text[]", names=", reason")}
        RETURNING message.id, queue, priority, reason, frame),
    buried AS (
        INSERT INTO celeriac_dead (queue, priority, reason, died_at, frame)
        SELECT queue, priority, reason, {NOW}, frame FROM gone ORDER BY id)
    SELECT id FROM gone"""
TRIM_FAILED = f"""
    DELETE FROM celeriac_failed WHERE id IN (
        SELECT id FROM celeriac_failed
        WHERE died_at < {NOW} - {{seconds}}::float8
           OR id <= (SELECT id FROM celeriac_failed ORDER BY id DESC
                     OFFSET greatest({{most}}::bigint - {{new}}, 0) LIMIT 1)
        ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED)"""
"""Drops from the failed list what is too much or too old; ``new`` says how many the same statement adds."""

FAIL = f"""
    WITH gone AS (
        DELETE FROM celeriac_message AS message
        USING {_HELD.format(more=", $3::text[], $4::text[]", names=", task, reason")}
        RETURNING message.id, queue, priority, task, reason, frame),
    failing AS (
        INSERT INTO celeriac_failed (task, queue, priority, reason, died_at, frame)
        SELECT task, queue, priority, reason, {NOW}, frame FROM gone ORDER BY id),
    trimmed AS ({TRIM_FAILED.format(most="$5", seconds="$6", new="(SELECT count(*) FROM gone)")})
    SELECT id FROM gone"""
SIMPLE = {"ack", "requeue", "return"}
"""Verbs whose statement has but one good plan, which can be kept."""

SETTLE = {
    "ack": ACK,
    "requeue": _GIVE_BACK.format(more=", redelivered = true"),
    "return": _GIVE_BACK.format(more=""),
    "park": PARK,
    "bury": BURY,
    "fail": FAIL,
}
"""For each verb of a settlement its statement, which returns the ids of what was still held."""

HELD = f"""
    SELECT message.id FROM celeriac_message AS message WHERE {_MINE} ORDER BY message.id FOR UPDATE OF message"""

_WAITING = "FROM celeriac_message WHERE queue = $1 AND owner IS NULL AND due_at IS NULL"
DEPTH = f"SELECT count(*) {_WAITING}"
PEEK = f"SELECT id, queue, redelivered, {_COUNTED} AS deliveries, frame {_WAITING} ORDER BY priority, id LIMIT $2"
PURGE = f"DELETE {_WAITING}"
SEE_ON = f"""
    SELECT id, queue, priority, redelivered, {_COUNTED} AS deliveries, frame {_WAITING}
      AND (priority, id) > ($2::integer, $3::bigint) ORDER BY priority, id LIMIT $4"""
REMOVE = """
    DELETE FROM celeriac_message WHERE id = ANY($1::bigint[]) AND owner IS NULL AND due_at IS NULL RETURNING id"""

DROP_ONCE = f"""
    DELETE FROM celeriac_once WHERE key IN (
        SELECT key FROM celeriac_once WHERE expires < {NOW} LIMIT 1000 FOR UPDATE SKIP LOCKED)"""
NOTE_ONCE = f"""
    INSERT INTO celeriac_once (key, expires)
    SELECT key, {NOW} + $2 FROM unnest($1::text[]) AS given (key) ORDER BY key
    ON CONFLICT DO NOTHING RETURNING key"""
FORGET_ONCE = f"""
    UPDATE celeriac_once SET expires = {NOW} + $2 WHERE key IN (
        SELECT key FROM celeriac_once WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE)"""

LIST_DEAD = "SELECT id, queue, reason, died_at, frame FROM celeriac_dead ORDER BY id LIMIT $1 OFFSET $2"
COUNT_DEAD = "SELECT count(*) FROM celeriac_dead"
RETRY_DEAD = f"""
    WITH gone AS (DELETE FROM celeriac_dead WHERE id = ANY($1::bigint[]) RETURNING id, queue, priority, frame),
    added AS (
        INSERT INTO celeriac_message (queue, priority, frame)
        SELECT queue, least(greatest(priority, 0), {HIGHEST_PRIORITY}), frame FROM gone ORDER BY id)
    SELECT queue FROM gone
    UNION ALL SELECT NULL FROM ({WAKE.format(queues="(SELECT queue FROM gone)")}) AS woken"""
DELETE_DEAD = "DELETE FROM celeriac_dead WHERE id = ANY($1::bigint[])"

LIST_PARKED = """
    SELECT id, queue, due_at, frame FROM celeriac_message WHERE due_at IS NOT NULL
    ORDER BY due_at, id LIMIT $1 OFFSET $2"""
COUNT_PARKED = "SELECT count(*) FROM celeriac_message WHERE due_at IS NOT NULL"
DELETE_PARKED = "DELETE FROM celeriac_message WHERE due_at IS NOT NULL AND id = ANY($1::bigint[])"
HORIZON = f"SELECT coalesce(max(due_at), 0) - {NOW} FROM celeriac_message WHERE due_at < {NOW} + {LONGEST}"


def check_queue(queue: str, refused: type[CeleriacError]) -> None:
    """Raise the error for a name that PostgreSQL cannot keep."""
    if "\0" in queue:
        raise refused(f"queue {queue!r} has a NUL, which PostgreSQL cannot keep; give the queue another name")


def columns_of(messages: Sequence[NewMessage], unknown: Collection[str]) -> list[list[Any]]:
    """Return the arrays of ``ADD``: of the messages, the queues to make known, and the queues to wake."""
    first = first_due((message.queue, message.due) for message in messages)
    return [*message_columns(messages), *queue_columns(first, unknown)]


WITH_QUEUES = 5
"""How many of these arrays have the messages and the queues to make known."""


def message_columns(messages: Sequence[NewMessage]) -> list[list[Any]]:
    """Return those arrays of ``ADD`` that have the messages."""
    return [
        [message.queue for message in messages],
        [message.priority for message in messages],
        without_nulls([message.due for message in messages]),
        [message.frame for message in messages],
    ]


def queue_columns(first: Sequence[Due], unknown: Collection[str]) -> list[list[Any]]:
    """Return those arrays of ``ADD`` that have the queues."""
    return [sorted(unknown), [queue for queue, _ in first], [due for _, due in first]]


def first_due(dues: Iterable[Due]) -> list[Due]:
    """Return of each queue what is due first."""
    first: dict[str, float | None] = {}
    for queue, due in dues:
        before = first.get(queue, inf)
        if before is not None:
            first[queue] = None if due is None else min(before, due)
    return list(first.items())


def held_columns(settlements: Sequence[Settlement], cap: Cap) -> list[Any]:
    """Return the values of a statement of ``SETTLE`` for settlements of one verb and owner."""
    columns: list[Any] = [[one.id for one in settlements], settlements[0].owner]
    if settlements[0].verb in ("park", "bury"):
        columns.append([one.detail for one in settlements])
    if settlements[0].verb == "fail":
        columns += [*failed_columns(settlements), cap.most, cap.seconds]
    return columns


def failed_columns(settlements: Sequence[Settlement]) -> list[list[str]]:
    """Return the ids of failed tasks, and their errors."""
    told = [one.detail for one in settlements if isinstance(one.detail, Failed)]
    return [[without_nul(one.id) for one in told], [without_nul(one.reason) for one in told]]


def without_nul(text: str) -> str:
    """Return a text as PostgreSQL can keep it."""
    return text.replace("\0", "\\x00")


def by_owner(settlements: Iterable[Settlement]) -> Iterable[list[Settlement]]:
    """Return the settlements of each verb and owner, in their order."""
    groups: dict[tuple[str, int], list[Settlement]] = {}
    for one in settlements:
        groups.setdefault((one.verb, one.owner), []).append(one)
    return groups.values()


def taken_message(row: Any, owner: int, take: int = 0) -> TakenMessage:
    """Return the message of a row of ``TAKE``, ``PEEK`` or ``SEE_ON``."""
    return TakenMessage(
        row["id"], owner, row["queue"], row["redelivered"], row["deliveries"], row["frame"], take
    )
