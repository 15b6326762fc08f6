"""The tables of a SQLite broker.

Rules: a table or a column that an older file lacks is made when the file is opened, so columns added later need none
of their values to be there.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

from celeriac.servers.sqlite.link import listener_table

METADATA = MetaData()
listener_table(METADATA)

Table("celeriac_queue", METADATA, Column("name", Text, primary_key=True))

Table(
    "celeriac_owner",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("expires", Float, nullable=False),
    Column("term", Float),
)

_message = Table(
    "celeriac_message",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("owner", Integer),
    Column("due_at", Float),
    Column("redelivered", Integer, nullable=False, server_default="0"),
    Column("deliveries", Integer, nullable=False, server_default="0"),
    Column("frame", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
Index(
    "celeriac_message_waiting",
    *_message.c["queue", "priority", "id"],
    sqlite_where=_message.c.owner.is_(None) & _message.c.due_at.is_(None),
)
Index("celeriac_message_due", _message.c.due_at, sqlite_where=_message.c.due_at.is_not(None))
Index("celeriac_message_owner", _message.c.owner, sqlite_where=_message.c.owner.is_not(None))

Table(
    "celeriac_dead",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("died_at", Float, nullable=False),
    Column("frame", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

Table(
    "celeriac_once",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("expires", Float, nullable=False, index=True),
)

Table(
    "celeriac_revoked",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("expires", Float, nullable=False, index=True),
    Column("terminate", Integer, nullable=False, server_default="0"),
)

Table(
    "celeriac_revision",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("number", Integer, nullable=False),
)
