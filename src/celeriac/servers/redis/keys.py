"""The names of a broker's keys, and the form of an entry in ``unacked``.

Rules: kombu's names come from ``wire.names``; ours begin with ``celeriac.``. None of our keys grows for ever: leases
and due times are removed with their message, dead letters stay until a person retries or deletes them, and the lists of
failed tasks, served queues, revoked tasks and messages published once expire.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from celeriac.contracts.board import REVOKED
from celeriac.wire import names


def set_key(prefix: str, name: str, kind: str) -> str:
    """Return the sorted set of a board's names of one kind."""
    return f"{prefix}celeriac.{name}.{kind}"


def revision_key(prefix: str, name: str) -> str:
    """Return the key that holds the revision of a board's sets of one name."""
    return f"{prefix}celeriac.{name}.revision"


class QueueLists(msgspec.Struct, frozen=True):
    """The lists of one queue, in the order they are taken from.

    :param keys: one list a priority step.
    :param steps: the steps, as they end a tag.
    :param tail: what follows a message in its ``unacked`` entry, so that kombu restores it to this queue.
    """

    queue: str
    keys: tuple[str, ...]
    steps: tuple[int, ...]
    tail: str


class Keys:
    """Names under one prefix.

    :param prefix: put in front of every key as it is (Celery: ``global_keyprefix``).
    :param steps: kombu's ``priority_steps``; every peer must use the same.
    :ivar kinds: the Redis type of every key of the broker itself; no queue may have such a name.
    """

    def __init__(self, prefix: str, steps: Sequence[int]) -> None:
        self.prefix = prefix
        self.steps = tuple(sorted(steps))
        self.unacked = prefix + names.UNACKED
        self.index = prefix + names.UNACKED_INDEX
        self.leases = f"{prefix}celeriac.leases"
        self.due = f"{prefix}celeriac.due"
        self.dead = f"{prefix}celeriac.dead"
        self.dead_index = f"{prefix}celeriac.dead.index"
        self.failed = f"{prefix}celeriac.failed"
        self.failed_index = f"{prefix}celeriac.failed.index"
        self.served = f"{prefix}celeriac.served"
        self.revision = revision_key(prefix, REVOKED)
        self.revoked = tuple(set_key(prefix, REVOKED, kind) for kind in ("ids", "roots", "terminate"))
        self.binding_deadlines = prefix + names.BINDING_DEADLINES
        self.kinds = {
            **dict.fromkeys((self.unacked, self.dead, self.failed), "hash"),
            **dict.fromkeys((self.index, self.leases, self.due, self.dead_index, self.served), "zset"),
            self.failed_index: "zset",
            **dict.fromkeys(self.revoked, "zset"),
            self.revision: "string",
        }

    def once(self, key: str, batch: int) -> str:
        """Return the key that marks a batch of messages as published under ``key``."""
        return f"{self.prefix}celeriac.once.{key}.{batch}"

    def list_for(self, queue: str, priority: int) -> str:
        """Return the list that a message of this priority is put in."""
        return self.prefix + names.priority_key(queue, priority, self.steps)

    def lists_of(self, queue: str) -> QueueLists:
        """Return all lists of a queue."""
        keys = tuple(self.prefix + key for key in names.queue_keys(queue, self.steps))
        return QueueLists(queue, keys, self.steps, self.tail(queue))

    def tail(self, queue: str) -> str:
        """Return what follows a message of this queue in its ``unacked`` entry."""
        return f', "", {json.dumps(queue)}]'

    def step(self, priority: int) -> int:
        """Return the step that ends the tag of a message of this priority."""
        return names.priority_step(priority, self.steps)

    def step_of_tag(self, tag: str) -> int | None:
        """Return the step that ends a tag, ``None`` where it ends otherwise than ours do."""
        _, colon, step = tag.rpartition(":")
        return int(step) if colon and len(step) == 1 and step.isascii() and step.isdigit() else None

    def list_of_tag(self, queue: str, tag: str) -> str:
        """Return the list that the message of this tag came from."""
        return self.list_for(queue, self.step_of_tag(tag) or 0)

    def binding(self, exchange: str) -> str:
        """Return the set of an exchange's bindings."""
        return self.prefix + names.binding_key(exchange)

    def permanent_binding(self, exchange: str) -> str:
        """Return the set that guards the bindings from kombu's sweep."""
        return self.prefix + names.permanent_binding_key(exchange)

    def declaration(
        self, queue: str, exchange: str = "", routing_key: str | None = None
    ) -> list[tuple[str, ...]]:
        """Return the commands that make a queue known to every peer.

        A queue of the default exchange is bound to the exchange of its own name, as Celery binds it: Celery 3.1 and
        the restoring of its messages look there.
        """
        member = names.binding_member(queue if routing_key is None else routing_key, "", queue)
        exchange = exchange or queue
        return [
            ("SADD", self.binding(exchange), member),
            ("SADD", self.permanent_binding(exchange), member),
        ]
