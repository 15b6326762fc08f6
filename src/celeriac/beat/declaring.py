"""Makes entries of what users write.

Rules: a bad value is refused where it is written. Where the messages go is decided here: by the options that are given,
the task's own, and the routes of the app that declares the entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, TypedDict, Unpack, get_args

import msgspec

from celeriac.beat.entry import CatchUp, Entry, Overlap, is_entry_name
from celeriac.beat.ticking import Arguments
from celeriac.canvas.nodes import Node
from celeriac.client.app import App
from celeriac.client.task import SendKeywords, Task
from celeriac.errors import ConfigError, EncodeError, ScheduleError
from celeriac.quantities import GRACE, MOMENT, SECONDS, require
from celeriac.routing import SendOptions
from celeriac.schedule.days import zone_name
from celeriac.schedule.interval import Interval, interval
from celeriac.schedule.slots import schedule_of
from celeriac.wire.extended_json import encode_json

_KEPT = (
    "queue", "exchange", "routing_key", "priority", "countdown", "expires", "headers", "serializer", "compression",
    "time_limit", "soft_time_limit", "shadow", "link", "link_error", "protocol",
)  # fmt: skip
"""The options of sending that an entry keeps."""


class EntryKeywords(TypedDict, total=False):
    """What an entry may say besides its task and schedule."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    tz: tzinfo | str | None
    relative: bool
    catch_up: CatchUp
    window: float | timedelta | None
    overlap: Overlap
    overlap_for: float | timedelta
    jitter: float | timedelta
    start: datetime | None
    end: datetime | None
    paused: bool
    options: Mapping[str, Any] | None


class Declaration(msgspec.Struct, frozen=True):
    """An entry, and what makes its arguments if it is lazy."""

    entry: Entry
    arguments: Arguments | None = None


def make_entry(
    app: App,
    name: str,
    task: Task[..., Any] | str,
    schedule: object,
    arguments: Arguments | None = None,
    **given: Unpack[EntryKeywords],
) -> Declaration:
    """Return the entry of a task; see ``Schedules.add`` for the parameters.

    :param arguments: makes the arguments at each tick.

    Raises ``ConfigError`` for a value that cannot be used, ``ArgumentError`` for arguments that the task does not take.
    """
    if not is_entry_name(name):
        raise ConfigError(
            f"the name of a periodic task is text of 1 to 200 characters, none of them a NUL, not {name!r:.100}"
        )
    what = f"periodic task {name!r}"
    _require_known(what, given)
    policy = _policy(what, given)
    args, kwargs = given.get("args") or (), given.get("kwargs") or {}
    task_name = task.name if isinstance(task, Task) else task
    call = app.call(task_name, args, kwargs, **_options(what, given.get("options")))
    text = "[[],{}]"
    lazy = arguments is not None
    if arguments is None:
        try:
            text = encode_json([list(call.args), dict(call.kwargs or {})], "arguments").decode()
        except EncodeError as error:
            raise ConfigError(f"{what}: the broker keeps the arguments as JSON: {error}") from error
    entry = Entry(
        name=name,
        task=task_name,
        schedule=_scheduled(app, schedule, given),
        arguments=text,
        options=_kept(what, call.options),
        lazy=lazy,
        ignore_result=call.ignore_result,
        **policy,
    )
    return Declaration(entry, arguments)


def _scheduled(app: App, given: object, more: EntryKeywords) -> Any:
    tz = more.get("tz")
    schedule = schedule_of(given, None if tz is None else zone_name(tz))
    if more.get("relative") and isinstance(schedule, Interval):
        schedule = interval(schedule.every, relative=True, tz=schedule.tz)
    return schedule_of(schedule, app.settings.timezone)


def _policy(what: str, given: EntryKeywords) -> dict[str, Any]:
    """Return the fields of an entry that say when it does not run as its schedule says."""
    policy: dict[str, Any] = {}
    for name, allowed in (("catch_up", get_args(CatchUp)), ("overlap", get_args(Overlap))):
        if (value := given.get(name)) is not None:
            if value not in allowed:
                raise ConfigError(f"{what}: {name}={value!r:.100}: give one of {', '.join(allowed)}")
            policy[name] = value
    for name, check in (("window", SECONDS), ("overlap_for", SECONDS), ("jitter", GRACE)):
        if (value := given.get(name)) is not None:
            seconds = value.total_seconds() if isinstance(value, timedelta) else value
            require(f"{what}: {name}", seconds, check)
            policy[name] = float(seconds)  # type: ignore[arg-type]
    for name in ("start", "end"):
        if (value := given.get(name)) is not None:
            require(f"{what}: {name}", value, MOMENT)
            policy[name] = value.timestamp()  # type: ignore[attr-defined]
    if "start" in policy and "end" in policy and policy["end"] < policy["start"]:
        raise ScheduleError(f"{what}: it ends before it starts")
    if not isinstance(paused := given.get("paused", False), bool):
        raise ConfigError(f"{what}: paused={paused!r:.100}: give True or False")
    return {**policy, "paused": paused}


def _require_known(what: str, given: Iterable[str]) -> None:
    """Raise ``ConfigError`` for a name that means nothing here: an option of sending would be dropped in silence."""
    known = EntryKeywords.__annotations__
    for name in given:
        if name in _KEPT or name == "ignore_result":
            raise ConfigError(f"{what}: {name} is an option of sending: write options={{{name!r}: ...}}")
        if name not in known:
            raise ConfigError(f"{what}: unknown option {name!r}: known are {', '.join(known)}")


def _options(what: str, given: Mapping[str, Any] | None) -> SendKeywords:
    for name in given or ():
        if name not in _KEPT and name != "ignore_result":
            raise ConfigError(
                f"{what}: option {name!r} has no meaning for a task that is sent again and again"
            )
    return dict(given or {})  # type: ignore[return-value]


def _kept(what: str, options: SendOptions) -> str:
    kept: dict[str, Any] = {}
    for name in _KEPT:
        if (value := getattr(options, name)) is not None:
            kept[name] = _signatures(value) if name.startswith("link") else value
    try:
        return encode_json(kept, "options").decode()
    except EncodeError as error:
        raise ConfigError(f"{what}: the broker keeps the options as JSON: {error}") from error


def _signatures(given: Any) -> list[dict[str, Any]]:
    links = [given] if isinstance(given, Mapping | Node) else given
    return [link.to_dict() if isinstance(link, Node) else dict(link) for link in links]
