"""The tables of a SQLite file, as SQL.

Rules: a table or a column that an older file lacks is made when the file is opened, so a column added later is
nullable or has a default. The tables of results are Celery's own, to the type of each column.
"""

from __future__ import annotations

LISTENERS = """
CREATE TABLE celeriac_listener (name TEXT NOT NULL, topic TEXT NOT NULL, PRIMARY KEY (name, topic));
CREATE INDEX ix_celeriac_listener_topic ON celeriac_listener (topic);
"""
"""The listeners: the ``name`` of each one's socket file, and a ``topic`` that it wants to be woken for."""

QUEUES = """
CREATE TABLE celeriac_queue (name TEXT NOT NULL PRIMARY KEY);

CREATE TABLE celeriac_message (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    owner INTEGER,
    due_at FLOAT,
    redelivered INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    frame BLOB NOT NULL
);
CREATE INDEX celeriac_message_waiting ON celeriac_message (queue, priority, id)
    WHERE owner IS NULL AND due_at IS NULL;
CREATE INDEX celeriac_message_due ON celeriac_message (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX celeriac_message_owner ON celeriac_message (owner) WHERE owner IS NOT NULL;

CREATE TABLE celeriac_dead (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    reason TEXT NOT NULL,
    died_at FLOAT NOT NULL,
    frame BLOB NOT NULL
);

CREATE TABLE celeriac_failed (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    reason TEXT NOT NULL,
    died_at FLOAT NOT NULL,
    frame BLOB NOT NULL,
    UNIQUE (task)
);

CREATE TABLE celeriac_once (key TEXT NOT NULL PRIMARY KEY, expires FLOAT NOT NULL);
CREATE INDEX ix_celeriac_once_expires ON celeriac_once (expires);

CREATE TABLE celeriac_binding (
    listener TEXT NOT NULL,
    exchange TEXT NOT NULL,
    key TEXT NOT NULL,
    expires FLOAT NOT NULL,
    PRIMARY KEY (listener, exchange, key)
);

CREATE TABLE celeriac_broadcast (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    exchange TEXT NOT NULL,
    key TEXT NOT NULL,
    expires FLOAT NOT NULL,
    frame BLOB NOT NULL
);
"""
"""What a broker needs."""

RESULTS = """
CREATE TABLE celery_taskmeta (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task_id VARCHAR(155),
    status VARCHAR(50),
    result BLOB,
    date_done DATETIME,
    traceback TEXT,
    children BLOB,
    name VARCHAR(155),
    args BLOB,
    kwargs BLOB,
    worker VARCHAR(155),
    retries INTEGER,
    queue VARCHAR(155),
    stamps BLOB,
    UNIQUE (task_id)
);
CREATE INDEX ix_celery_taskmeta_date_done ON celery_taskmeta (date_done);

CREATE TABLE celery_tasksetmeta (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    taskset_id VARCHAR(155),
    result BLOB,
    date_done DATETIME,
    UNIQUE (taskset_id)
);
CREATE INDEX ix_celery_tasksetmeta_date_done ON celery_tasksetmeta (date_done);

CREATE TABLE celeriac_chord (
    id VARCHAR NOT NULL PRIMARY KEY,
    size INTEGER,
    ended INTEGER,
    joined INTEGER,
    token VARCHAR,
    claimed_until FLOAT,
    done INTEGER,
    touched FLOAT
);
CREATE INDEX ix_celeriac_chord_touched ON celeriac_chord (touched);

CREATE TABLE celeriac_chord_part (
    chord_id VARCHAR NOT NULL,
    task_id VARCHAR NOT NULL,
    place INTEGER NOT NULL,
    joins INTEGER NOT NULL,
    part BLOB,
    PRIMARY KEY (chord_id, task_id, place, joins)
);
"""
"""What a result store needs: Celery's two tables, and celeriac's own beside them."""

BOARD = """
CREATE TABLE celeriac_member (
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    member TEXT NOT NULL,
    expires FLOAT NOT NULL,
    PRIMARY KEY (name, kind, member)
);
CREATE INDEX celeriac_member_expires ON celeriac_member (expires);

CREATE TABLE celeriac_revision (name TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL);

CREATE TABLE celeriac_mark (
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT,
    expires FLOAT NOT NULL,
    PRIMARY KEY (key, name)
);
CREATE INDEX celeriac_mark_expires ON celeriac_mark (expires);

CREATE TABLE celeriac_lease (name TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL, expires FLOAT NOT NULL);
CREATE INDEX celeriac_lease_expires ON celeriac_lease (expires);

CREATE TABLE celeriac_slot (entry TEXT NOT NULL PRIMARY KEY, last FLOAT NOT NULL, expires FLOAT NOT NULL);
CREATE INDEX celeriac_slot_expires ON celeriac_slot (expires);

CREATE TABLE celeriac_turn (name TEXT NOT NULL, at FLOAT NOT NULL, expires FLOAT NOT NULL);
CREATE INDEX celeriac_turn_last ON celeriac_turn (name, at);
CREATE INDEX celeriac_turn_expires ON celeriac_turn (expires);
"""
"""What a board needs: sets of names and their revisions, marks, leases, the last slots of periodic tasks,
and the turns of windows.
"""
