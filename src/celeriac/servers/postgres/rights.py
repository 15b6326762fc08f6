"""Finds out which rights to celeriac's tables a role lacks.

Rules: the server is asked what the role may do, and nothing is tried; a table that is not there has no rights. What no
task can do without is distinguished from what is only slower without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from celeriac.errors import Finding
from celeriac.servers.postgres.link import PostgresLink

Rights = Mapping[str, str]
"""For each table or sequence the rights to it, as ``GRANT`` names them."""

_ALL = "SELECT, INSERT, UPDATE, DELETE"

QUEUES: Rights = {
    "celeriac_queue": "INSERT",
    "celeriac_message": _ALL,
    "celeriac_owner_number": "USAGE",
    "celeriac_owner": _ALL,
    "celeriac_sleeper": _ALL,
    "celeriac_dead": "INSERT",
    "celeriac_failed": "SELECT, INSERT, DELETE",
    "celeriac_once": _ALL,
    "celeriac_member": _ALL,
    "celeriac_revision": "SELECT, INSERT, UPDATE",
}
"""The rights without which a message cannot be sent, taken, settled or revoked."""

RESULTS: Rights = {
    "celery_taskmeta": _ALL,
    "task_id_sequence": "USAGE",
    "celeriac_waiting": _ALL,
    "celeriac_chord": _ALL,
    "celeriac_chord_part": "SELECT, INSERT, DELETE",
}
"""The rights without which a result cannot be stored, waited for or counted in a chord."""

WITHOUT: Sequence[tuple[Rights, str]] = (
    (
        {"celeriac_binding": _ALL, "celeriac_broadcast": _ALL, "celeriac_reply": _ALL},
        "remote control and events do not work",
    ),
    (
        {"celeriac_lease": _ALL, "celeriac_turn": _ALL, "celeriac_slot": _ALL, "celeriac_mark": _ALL},
        "periodic tasks do not run",
    ),
    ({"celeriac_round": "SELECT, INSERT, UPDATE"}, "rows that are over stay"),
)
"""The rights that some uses need, and what does not work without them."""

_LACKING = """
    SELECT name, string_agg(wanted, ', ' ORDER BY place) AS wanted
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given (name, wanted, place)
    WHERE to_regclass(name) IS NOT NULL
      AND NOT CASE WHEN wanted = 'USAGE' THEN has_sequence_privilege(name, wanted)
                   ELSE has_table_privilege(name, wanted) END
    GROUP BY name ORDER BY min(place)"""


async def lacking(link: PostgresLink, rights: Rights) -> str:
    """Return which of the rights this role lacks, as ``GRANT`` has them; empty if it has all."""
    pairs = [(name, right) for name, wanted in rights.items() for right in wanted.split(", ")]
    rows = await link.fetch(_LACKING, [name for name, _ in pairs], [right for _, right in pairs])
    return "; ".join(f"{row['wanted']} on {row['name']}" for row in rows)


async def require(link: PostgresLink, rights: Rights) -> None:
    """Raise the link's error for a refusal, naming the rights that this role lacks."""
    if what := await lacking(link, rights):
        role = await link.value("SELECT current_user")
        raise link.refusal(f"role {role!r} lacks {what}; grant it, or let the role own the tables")


async def costs(link: PostgresLink) -> list[Finding]:
    """Return what does not work because this role lacks rights that tasks can do without."""
    found = [(await lacking(link, rights), cost) for rights, cost in WITHOUT]
    return [
        Finding(f"this role lacks {what}: {cost}", "grant it, or let the role own the tables")
        for what, cost in found
        if what
    ]
