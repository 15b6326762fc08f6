"""The tables of the history.

Rules: a row of ``task`` keeps its number, by which pages are told apart. Triggers keep the index of texts equal to it.
Another version's file is made anew: a history can be lost, and what the broker and the results hold cannot.
"""

from __future__ import annotations

import sqlite3

VERSION = 2

TABLES = """
CREATE TABLE task (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, state TEXT NOT NULL, queue TEXT NOT NULL,
  worker TEXT NOT NULL, args TEXT NOT NULL, kwargs TEXT NOT NULL, result TEXT NOT NULL, error TEXT NOT NULL,
  retries INTEGER NOT NULL, sent REAL, received REAL, started REAL, ended REAL, runtime REAL, eta TEXT NOT NULL,
  expires TEXT NOT NULL, root TEXT NOT NULL, parent TEXT NOT NULL, progress TEXT NOT NULL, changed REAL NOT NULL);
CREATE INDEX task_state ON task (state, seq);
CREATE INDEX task_name ON task (name, seq);
CREATE INDEX task_root ON task (root, seq) WHERE root <> '';
CREATE INDEX task_changed ON task (changed);
CREATE VIRTUAL TABLE task_text USING fts5(
  name, id, args, kwargs, error, content='task', content_rowid='seq', tokenize='trigram');
CREATE TRIGGER task_added AFTER INSERT ON task BEGIN
  INSERT INTO task_text (rowid, name, id, args, kwargs, error)
  VALUES (new.seq, new.name, new.id, new.args, new.kwargs, new.error);
END;
CREATE TRIGGER task_deleted AFTER DELETE ON task BEGIN
  INSERT INTO task_text (task_text, rowid, name, id, args, kwargs, error)
  VALUES ('delete', old.seq, old.name, old.id, old.args, old.kwargs, old.error);
END;
CREATE TRIGGER task_changed_text AFTER UPDATE ON task
WHEN old.name <> new.name OR old.args <> new.args OR old.kwargs <> new.kwargs OR old.error <> new.error BEGIN
  INSERT INTO task_text (task_text, rowid, name, id, args, kwargs, error)
  VALUES ('delete', old.seq, old.name, old.id, old.args, old.kwargs, old.error);
  INSERT INTO task_text (rowid, name, id, args, kwargs, error)
  VALUES (new.seq, new.name, new.id, new.args, new.kwargs, new.error);
END;
CREATE TABLE traceback (hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempt (
  task TEXT NOT NULL, retries INTEGER NOT NULL, at REAL NOT NULL, worker TEXT NOT NULL, state TEXT NOT NULL,
  error TEXT NOT NULL, traceback TEXT NOT NULL, grouped TEXT NOT NULL, PRIMARY KEY (task, retries, at)) WITHOUT ROWID;
CREATE INDEX attempt_grouped ON attempt (grouped);
CREATE TABLE grouped (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, error TEXT NOT NULL, place TEXT NOT NULL, first REAL NOT NULL,
  last REAL NOT NULL, count INTEGER NOT NULL, example TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE grouped_hour (
  hour INTEGER NOT NULL, grouped TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (hour, grouped)) WITHOUT ROWID;
CREATE TABLE minute (
  minute INTEGER NOT NULL, name TEXT NOT NULL, queue TEXT NOT NULL, state TEXT NOT NULL, count INTEGER NOT NULL,
  runtime REAL NOT NULL, longest REAL NOT NULL, wait REAL NOT NULL,
  PRIMARY KEY (minute, name, queue, state)) WITHOUT ROWID;
CREATE TABLE again (task TEXT PRIMARY KEY, changed REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE action (at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, outcome TEXT NOT NULL);
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where they are missing, or are another version's."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    for kind, name in connection.execute("SELECT type, name FROM sqlite_master").fetchall():
        if kind == "table" and not name.startswith(("sqlite_", "task_text_")):
            connection.execute(f"DROP TABLE {name}")
    connection.executescript(TABLES)
    connection.execute(f"PRAGMA user_version = {VERSION}")
