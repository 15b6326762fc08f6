"""The options of signatures: their names, those that belong together, and where a composite passes them.

Rules: this module is pure. Names and meanings are Celery's.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from celeriac.errors import ConfigError
from celeriac.quantities import OPTIONS as QUANTITIES
from celeriac.quantities import require
from celeriac.wire.names import MAKING_A_TASK
from celeriac.wire.signature import misfit

OPTIONS = frozenset(
    {
        "queue", "exchange", "routing_key", "priority", "countdown", "eta", "expires", "task_id", "headers",
        "serializer", "compression", "retry", "ignore_result", "time_limit", "soft_time_limit", "shadow", "protocol",
        "reply_to", "root_id", "parent_id",
    }
)  # fmt: skip
"""The options of a signature's sending; their meaning is that of ``SendOptions``."""

RESERVED = OPTIONS | MAKING_A_TASK | {
    "link", "link_error", "chain", "chord", "group_id", "group_index", "replaced_task_nesting", "stamped_headers",
}  # fmt: skip
"""Names that a stamp may not have: stamps travel among the options, and would be taken for these."""

DELAYS = frozenset({"countdown", "eta"})
"""Options that delay a workflow: they go to the tasks that run first."""

DESTINATION = frozenset({"queue", "exchange", "routing_key"})
"""Options that are replaced together: a queue that is set later must not be combined with an earlier exchange."""

AT_HOME = frozenset({"retry", "protocol"})
"""Options for the program that sends; messages do not carry them."""


def shared_out(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return those options of a composite that go to its first part, those for its last, and those for each part."""
    first = {name: value for name, value in options.items() if name in DELAYS}
    ending = {name: value for name, value in options.items() if name == "task_id"}
    rest = {name: value for name, value in options.items() if name not in DELAYS and name != "task_id"}
    return first, ending, rest


def check_option(name: str, value: Any) -> None:
    """Raise ``ConfigError`` for an unknown option, or a value that the option cannot have."""
    if name not in OPTIONS:
        near = get_close_matches(name, OPTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(OPTIONS))}"
        raise ConfigError(f"unknown option {name!r}: {hint}")
    if value is not None and name in QUANTITIES:
        require(f"option {name}", value, QUANTITIES[name])
    if (wrong := misfit(name, value)) is not None:
        raise ConfigError(f"option {name}={value!r:.100}: {wrong}")


def check_stamp(name: str) -> None:
    """Raise ``ConfigError`` for a stamp that Celery would take for an option, or for a field of a task."""
    if name in RESERVED:
        raise ConfigError(f"stamp {name!r}: an option has that name, or a field of a task; choose another")
