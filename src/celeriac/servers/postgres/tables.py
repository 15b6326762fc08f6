"""The tables of a PostgreSQL database, as numbered SQL.

Rules: a part of the tables has a version, which is the number of its last step; a step that was released is never
changed, the next change is a step of its own. Celery's two tables are Celery's own, to the type of each column: the ids
come from its sequences, and have no default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

VERSIONS = "CREATE TABLE IF NOT EXISTS celeriac_schema (part text PRIMARY KEY, version integer NOT NULL);"

_RESULTS = """
CREATE SEQUENCE IF NOT EXISTS task_id_sequence;
CREATE TABLE IF NOT EXISTS celery_taskmeta (
    id INTEGER NOT NULL,
    task_id VARCHAR(155),
    status VARCHAR(50),
    result BYTEA,
    date_done TIMESTAMP WITHOUT TIME ZONE,
    traceback TEXT,
    children BYTEA,
    name VARCHAR(155),
    args BYTEA,
    kwargs BYTEA,
    worker VARCHAR(155),
    retries INTEGER,
    queue VARCHAR(155),
    stamps BYTEA,
    PRIMARY KEY (id),
    UNIQUE (task_id)
);
CREATE SEQUENCE IF NOT EXISTS taskset_id_sequence;
CREATE TABLE IF NOT EXISTS celery_tasksetmeta (
    id INTEGER NOT NULL,
    taskset_id VARCHAR(155),
    result BYTEA,
    date_done TIMESTAMP WITHOUT TIME ZONE,
    PRIMARY KEY (id),
    UNIQUE (taskset_id)
);

-- A table of an older Celery lacks columns; one that lacks nothing may belong to another role.
DO $$
DECLARE wanted record;
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        ('children', 'BYTEA'), ('name', 'VARCHAR(155)'), ('args', 'BYTEA'), ('kwargs', 'BYTEA'),
        ('worker', 'VARCHAR(155)'), ('retries', 'INTEGER'), ('queue', 'VARCHAR(155)'), ('stamps', 'BYTEA'))
        AS columns (name, type)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'celery_taskmeta'::regclass
                       AND attname = wanted.name AND NOT attisdropped) THEN
            EXECUTE format('ALTER TABLE celery_taskmeta ADD COLUMN %I %s', wanted.name, wanted.type);
        END IF;
    END LOOP;
    IF to_regclass('ix_celery_taskmeta_date_done') IS NULL THEN
        CREATE INDEX ix_celery_taskmeta_date_done ON celery_taskmeta (date_done);
    END IF;
    IF to_regclass('ix_celery_tasksetmeta_date_done') IS NULL THEN
        CREATE INDEX ix_celery_tasksetmeta_date_done ON celery_tasksetmeta (date_done);
    END IF;
END $$;

-- The waits for results, each with the channel of the process that waits.
CREATE UNLOGGED TABLE celeriac_waiting (
    task_id text NOT NULL,
    channel text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, channel)
);

CREATE TABLE celeriac_chord (
    id text PRIMARY KEY,
    size integer NOT NULL,
    ended integer NOT NULL DEFAULT 0,
    joined integer NOT NULL DEFAULT 0,
    token text,
    claimed_until double precision,
    done boolean NOT NULL DEFAULT false,
    touched double precision NOT NULL
);
CREATE INDEX celeriac_chord_touched ON celeriac_chord (touched);
CREATE TABLE celeriac_chord_part (
    chord_id text NOT NULL,
    task_id text NOT NULL,
    place bigint NOT NULL,
    joins boolean NOT NULL,
    part bytea,
    PRIMARY KEY (chord_id, task_id, place, joins)
);
"""

_BOARD = """
CREATE TABLE celeriac_member (
    name text NOT NULL,
    kind text NOT NULL,
    member text NOT NULL,
    expires double precision NOT NULL,
    PRIMARY KEY (name, kind, member)
);
CREATE INDEX celeriac_member_expires ON celeriac_member (expires);
CREATE TABLE celeriac_revision (name text PRIMARY KEY, number bigint NOT NULL);
CREATE TABLE celeriac_mark (
    key text NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    expires double precision NOT NULL,
    PRIMARY KEY (key, name)
);
CREATE INDEX celeriac_mark_expires ON celeriac_mark (expires);
CREATE TABLE celeriac_lease (name text PRIMARY KEY, holder text NOT NULL, expires double precision NOT NULL);
CREATE TABLE celeriac_turn (name text NOT NULL, at double precision NOT NULL, expires double precision NOT NULL);
CREATE INDEX celeriac_turn_last ON celeriac_turn (name, at);
CREATE INDEX celeriac_turn_expires ON celeriac_turn (expires);
"""

_SLOTS = """
CREATE TABLE celeriac_slot (entry text PRIMARY KEY, last double precision NOT NULL, expires double precision NOT NULL);
CREATE INDEX celeriac_slot_expires ON celeriac_slot (expires);
"""

_QUEUES = """
CREATE TABLE celeriac_queue (name text PRIMARY KEY);

CREATE TABLE celeriac_message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL,
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    owner integer,
    due_at double precision,
    redelivered boolean NOT NULL DEFAULT false,
    deliveries integer NOT NULL DEFAULT 0,
    frame bytea NOT NULL
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX celeriac_message_waiting ON celeriac_message (queue, priority, id)
    WHERE owner IS NULL AND due_at IS NULL;
CREATE INDEX celeriac_message_due ON celeriac_message (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX celeriac_message_owner ON celeriac_message (owner) WHERE owner IS NOT NULL;

-- The processes that hold messages; each keeps an advisory lock with its number.
CREATE SEQUENCE celeriac_owner_number AS integer CYCLE;
CREATE TABLE celeriac_owner (id integer PRIMARY KEY);

-- The subscriptions that sleep until a queue gets a message, each with the channel that wakes it.
CREATE UNLOGGED TABLE celeriac_sleeper (
    queue text NOT NULL,
    process text NOT NULL,
    channel text NOT NULL,
    until double precision NOT NULL,
    PRIMARY KEY (queue, process)
) WITH (fillfactor = 50);

CREATE TABLE celeriac_dead (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL,
    priority smallint NOT NULL,
    reason text NOT NULL,
    died_at double precision NOT NULL,
    frame bytea NOT NULL
);

CREATE TABLE celeriac_once (key text PRIMARY KEY, expires double precision NOT NULL);
CREATE INDEX celeriac_once_expires ON celeriac_once (expires);

CREATE UNLOGGED TABLE celeriac_binding (
    listener text NOT NULL,
    exchange text NOT NULL,
    key text NOT NULL,
    expires double precision NOT NULL,
    PRIMARY KEY (listener, exchange, key)
);
CREATE UNLOGGED TABLE celeriac_broadcast (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange text NOT NULL,
    key text NOT NULL,
    expires double precision NOT NULL,
    frame bytea NOT NULL
);

-- When each kind of housekeeping was done last.
CREATE TABLE celeriac_round (name text PRIMARY KEY, at double precision NOT NULL);
"""

_FAILED = """
CREATE TABLE celeriac_failed (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task text NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    reason text NOT NULL,
    died_at double precision NOT NULL,
    frame bytea NOT NULL
);
CREATE INDEX celeriac_failed_task ON celeriac_failed (task);
"""

# Answers to questions; and, behind a pooler, until when an owner counts, since it can hold no lock there.
_ANSWERS = """
CREATE UNLOGGED TABLE celeriac_reply (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange text NOT NULL,
    key text NOT NULL,
    expires double precision NOT NULL,
    frame bytea NOT NULL
);
CREATE INDEX celeriac_reply_address ON celeriac_reply (exchange, key);
ALTER TABLE celeriac_owner ADD COLUMN expires double precision;
"""

STEPS: Mapping[str, Sequence[str]] = {
    "results": (_RESULTS,),
    "board": (_BOARD, _SLOTS),
    "queues": (_QUEUES, _FAILED, _ANSWERS),
}
"""For each part of the tables its steps; the first is step 1."""


def as_text(*parts: str) -> Mapping[str, str]:
    """Return for each part the SQL that makes it in a schema that has none of it, for a person to run."""
    return {part: _as_text(part) for part in parts}


def _as_text(part: str) -> str:
    steps = [f"-- {part}, step {number}{step}" for number, step in enumerate(STEPS[part], 1)]
    note = f"INSERT INTO celeriac_schema (part, version) VALUES ('{part}', {len(steps)});\n"
    return "\n".join([VERSIONS, *steps, note])
