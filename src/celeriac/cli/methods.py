"""The methods of remote control that Celery's command line knows, with their arguments in its order.

Rules: names, order and types are those of Celery 5.7's panel, so that a line written for ``celery inspect`` or ``celery
control`` means the same here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import click

Kind = Callable[[str], Any]


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        raise ValueError("give true or false")
    return text.lower() in ("true", "yes", "on", "1")


class Method(NamedTuple):
    """One method.

    :param help: what it does, for people.
    :param args: the names and types of its arguments, in their order.
    :param required: how many of these must be given.
    :param rest: the name of the argument that takes what is left, as a list.
    :param usage: the arguments, for people.
    """

    help: str
    args: Sequence[tuple[str, Kind]] = ()
    required: int = 0
    rest: str = ""
    usage: str = ""


INSPECT: Mapping[str, Method] = {
    "active": Method("The tasks that run."),
    "active_queues": Method("The queues that each worker takes from."),
    "clock": Method("The logical clock."),
    "conf": Method("The settings.", [("with_defaults", _flag)], usage="[INCLUDE_DEFAULTS=False]"),
    "memdump": Method("What memsample found.", [("samples", int)], usage="[SAMPLES=10]"),
    "memsample": Method("Note the memory in use."),
    "objgraph": Method(
        "Draw what objects are not collected.",
        [("type", str), ("num", int), ("max_depth", int)],
        usage="[TYPE=Request [NUM=200 [MAX_DEPTH=10]]]",
    ),
    "ping": Method("Ask for a sign of life."),
    "query_task": Method("What is known of tasks.", rest="ids", usage="[ID]..."),
    "registered": Method(
        "The tasks that each worker can run, with attributes of theirs.",
        rest="taskinfoitems",
        usage="[ATTR]...",
    ),
    "report": Method("Versions and settings, for reports of defects."),
    "reserved": Method("The tasks that were taken and do not run yet."),
    "revoked": Method("The ids of revoked tasks."),
    "scheduled": Method("The tasks whose time is yet to come."),
    "stats": Method("Numbers about each worker."),
}
"""The methods of ``celery inspect``."""

CONTROL: Mapping[str, Method] = {
    "add_consumer": Method(
        "Take from this queue too.",
        [("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
        1,
        usage="QUEUE [EXCHANGE [TYPE [ROUTING_KEY]]]",
    ),
    "autoscale": Method(
        "Change the limits of autoscaling.", [("max", int), ("min", int)], usage="[MAX [MIN]]"
    ),
    "cancel_consumer": Method("Take from this queue no longer.", [("queue", str)], 1, usage="QUEUE"),
    "disable_events": Method("Send no more events of tasks."),
    "election": Method("Hold an election."),
    "enable_events": Method("Send events of tasks."),
    "heartbeat": Method("Send an event of life at once."),
    "pool_grow": Method("Run more tasks at once.", [("n", int)], usage="[N=1]"),
    "pool_restart": Method("Start the pool anew."),
    "pool_shrink": Method("Run fewer tasks at once.", [("n", int)], usage="[N=1]"),
    "rate_limit": Method(
        "Limit how many tasks of a name start in a time.",
        [("task_name", str), ("rate_limit", str)],
        2,
        usage="TASK_NAME RATE, such as 5/s, 5/m, 5/h, 0 for none",
    ),
    "revoke": Method("Revoke tasks by id.", rest="task_id", usage="[ID]..."),
    "revoke_by_stamped_headers": Method(
        "Revoke tasks by what they are stamped with.", rest="headers", usage="[KEY=VALUE]..."
    ),
    "shutdown": Method("End the workers gracefully."),
    "terminate": Method(
        "Revoke tasks, and end those that run.", [("signal", str)], 1, "task_id", "SIGNAL [ID]..."
    ),
    "time_limit": Method(
        "Limit how long tasks of a name run.",
        [("task_name", str), ("soft", float), ("hard", float)],
        2,
        usage="TASK_NAME SOFT_SECONDS [HARD_SECONDS]",
    ),
}
"""The methods of ``celery control``."""


def method_of(name: str, methods: Mapping[str, Method]) -> Method:
    """Return a method. Raises ``click.UsageError`` for an unknown name, with the nearest one."""
    found = methods.get(name)
    if found is not None:
        return found
    for command, others in (("inspect", INSPECT), ("control", CONTROL)):
        if name in others:
            raise click.UsageError(f"{name} is a method of another command: celeriac {command} {name}")
    near = get_close_matches(name.replace("-", "_"), methods, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(methods)}"
    raise click.UsageError(f"there is no method {name}; {hint}")


def arguments_of(name: str, method: Method, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments by name, from the words of the command line. Raises ``click.UsageError``."""
    if len(words) < method.required or (len(words) > len(method.args) and not method.rest):
        raise click.UsageError(f"{name} takes {method.usage or 'no arguments'}")
    arguments: dict[str, Any] = {}
    for (argument, kind), word in zip(method.args, words, strict=False):
        try:
            arguments[argument] = kind(word)
        except ValueError as error:
            raise click.UsageError(f"{name}: {word!r} is no {argument}: {error}") from error
    if method.rest:
        arguments[method.rest] = list(words[len(method.args) :])
    return arguments
