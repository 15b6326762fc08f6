"""What each button does.

Rules: a form names the entries it means, or says ``all`` with a filter. See ``forms`` for what is told.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request

from celeriac.celeriac import Celeriac
from celeriac.monitor.again import Arguments, Refused
from celeriac.monitor.filters import read_filter
from celeriac.monitor.jobs import Work
from celeriac.monitor.masking import HIDDEN
from celeriac.monitor.monitor import Monitor
from celeriac.web.forms import MOST_AT_ONCE, Act, Form, Outcome, done, named, read_form
from celeriac.web.queue_doing import queues, scheduled
from celeriac.wire.preview import counted


async def tasks(monitor: Monitor, request: Request) -> Outcome:
    """Retry, cancel, terminate or forget tasks."""
    form = await read_form(request)
    ids, before = form.all("id"), 0
    if form.one("all"):
        wanted = read_filter(
            {
                name: form.one(name)
                for name in ("state", "name", "queue", "worker", "root", "group", "text", "since", "until")
            },
            monitor.clock.now(),
        )
        ids = await monitor.history.ids(wanted, MOST_AT_ONCE)
        if form.one("action") == "retry":
            # Pressed a second time it means those that failed since, not those that it sent already.
            fresh = await monitor.history.ids(msgspec.structs.replace(wanted, again=False), MOST_AT_ONCE)
            before, ids = max(0, len(ids) - len(fresh)), fresh
    actions = monitor.actions
    deeds: Mapping[str, tuple[Work, str]] = {
        "retry": (actions.retry_all, "sent again"),
        "cancel": (actions.cancel, "cancelled"),
        "terminate": (partial(actions.cancel, terminate=True), "terminated"),
        "forget": (actions.forget, "forgotten here"),
    }
    return await _to_many(monitor, form, ids, deeds, "tasks", before)


async def jobs(monitor: Monitor, request: Request) -> Outcome:
    """Stop what is under way."""
    form = await read_form(request)
    number = form.one("job")

    async def stop() -> str:
        return "stopped" if monitor.jobs.stop(number) else "it had ended already"

    return await done(f"stop {number}", stop if form.one("action") == "stop" else None, form)


async def change(monitor: Monitor, request: Request) -> Outcome:
    """Run one task again with arguments that a person wrote."""
    form = await read_form(request)
    id = form.one("id")

    async def retry() -> str:
        texts = form.one("args") or "()", form.one("kwargs") or "{}"
        if HIDDEN in "".join(texts):
            raise Refused("a hidden value stands in the arguments: write the value itself")
        args, kwargs = map(_literal, texts)
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
            raise Refused("write the arguments as a list or tuple, and the keywords as a dict")
        new = await monitor.actions.retry(id, Arguments(list(args), kwargs))
        monitor.forget()
        return f"sent again as {new}"

    return await done(f"retry {id} with changes", retry, form)


async def dead(monitor: Monitor, request: Request) -> Outcome:
    """Put messages that were set aside back, or delete them."""
    form = await read_form(request)
    ids, letters = form.all("key"), monitor.app.connections().broker.dead

    async def retry() -> str:
        number = await letters.retry(ids)
        monitor.forget()
        return f"{counted(number, 'message')} put back"

    async def delete() -> str:
        number = await letters.delete(ids)
        monitor.forget()
        return f"{counted(number, 'message')} deleted"

    deeds = {"retry": retry, "delete": delete}
    return await done(f"{form.one('action')} dead {named(ids)}", deeds.get(form.one("action")), form)


async def failed(monitor: Monitor, request: Request) -> Outcome:
    """Run tasks of the failed list again, or delete their messages."""
    form = await read_form(request)
    ids, kept = form.all("key"), monitor.app.connections().broker.failed
    if form.one("all"):
        ids = [letter.id for letter in await kept.list(MOST_AT_ONCE)]
    actions = monitor.actions
    deeds: Mapping[str, tuple[Work, str]] = {
        "retry": (actions.retry_failed, "sent again"),
        "delete": (kept.delete, "deleted"),
    }
    return await _to_many(monitor, form, ids, deeds, "failed tasks")


async def periodic(monitor: Monitor, request: Request) -> Outcome:
    """Pause or resume a periodic task, or run it now."""
    form = await read_form(request)
    name, action = form.one("name"), form.one("action")
    if not isinstance(monitor.app, Celeriac):
        return Outcome(action, "nothing was done: there are no periodic tasks here", form.back())
    schedules = monitor.app.schedules

    async def pause() -> str:
        await schedules.pause(name)
        return f"{name} is paused"

    async def resume() -> str:
        await schedules.resume(name)
        return f"{name} goes on"

    async def trigger() -> str:
        return f"{name} was sent as {(await schedules.trigger(name)).id}"

    deeds = {"pause": pause, "resume": resume, "trigger": trigger}
    return await done(f"{action} {name}", deeds.get(action), form)


async def workers(monitor: Monitor, request: Request) -> Outcome:
    """Steer one worker."""
    form = await read_form(request)
    node, action = form.one("node"), form.one("action")
    arguments: Mapping[str, Callable[[], Mapping[str, Any]]] = {
        "shutdown": dict,
        "rate_limit": lambda: {"task_name": form.one("task"), "rate_limit": form.one("rate") or "0"},
        "time_limit": lambda: {
            "task_name": form.one("task"),
            "soft": _seconds(form.one("soft")),
            "hard": _seconds(form.one("hard")),
        },
        "pool_grow": lambda: {"n": _number(form.one("n") or "1")},
        "pool_shrink": lambda: {"n": _number(form.one("n") or "1")},
        "add_consumer": lambda: {"queue": form.one("queue")},
        "cancel_consumer": lambda: {"queue": form.one("queue")},
    }
    given = arguments.get(action)

    async def steer() -> str:
        assert given is not None
        asked = await monitor.app.control.ask(action, given(), destination=[node], timeout=2.0)
        answer = asked.by_node.get(node, "no answer")
        if isinstance(answer, dict):
            answer = answer.get("ok") or answer.get("error") or answer
        return f"{node}: {answer}"

    return await done(f"{action} {node}", steer if given else None, form)


ACTIONS: Mapping[str, Act] = {
    "/do/tasks": tasks,
    "/do/change": change,
    "/do/jobs": jobs,
    "/do/queues": queues,
    "/do/dead": dead,
    "/do/failed": failed,
    "/do/periodic": periodic,
    "/do/scheduled": scheduled,
    "/do/workers": workers,
}
"""The actions by path."""


async def _to_many(
    monitor: Monitor,
    form: Form,
    ids: Sequence[str],
    deeds: Mapping[str, tuple[Work, str]],
    what: str,
    before: int = 0,
) -> Outcome:
    """Do one of the deeds to tasks, a large number of them in the background.

    :param before: how many more are left out, since it was done to them already.
    """
    action = form.one("action")
    left_out = f"; {before} were {deeds[action][1]} before" if before else ""
    work, word = deeds.get(action, (None, ""))

    async def do() -> str:
        assert work is not None
        job = await monitor.jobs.run(f"{action} {what}", ids, work)
        monitor.forget()
        if job.under_way:
            return f"{counted(len(ids), 'task')}: under way, see About{left_out}"
        trouble = f"; not: {job.trouble}" if job.trouble else ""
        return f"{counted(job.done, 'task')} {word}{left_out}{trouble}"

    return await done(f"{action} {named(ids)}", do if work else None, form)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise Refused(f"{text[:100]!r} cannot be read as Python values: {error}") from error


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text) if text else None
    except ValueError as error:
        raise Refused(f"{text!r} is no number of seconds") from error
    if seconds is not None and not 0 < seconds < 1e9:
        raise Refused(f"{text!r} is no number of seconds")
    return seconds


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= 1000:
        raise Refused(f"{text!r} is no number from 1 to 1000")
    return int(text)
