"""What each button does.

Rules: a form names the entries it means, or says ``all`` with a filter; what was done is said on the page that it leads
back to, and is kept with the name of the user who did it. A page's form gives ``back``, a path within the dashboard.
"""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote

import msgspec
from starlette.requests import Request

from celeriac.celeriac import Celeriac
from celeriac.errors import CeleriacError
from celeriac.monitor.actions import Actions
from celeriac.monitor.again import Arguments, Refused
from celeriac.monitor.filters import read_filter
from celeriac.monitor.jobs import Work
from celeriac.monitor.masking import HIDDEN
from celeriac.monitor.monitor import Monitor
from celeriac.wire.preview import counted

LARGEST = 1_000_000
"""Bytes of a form."""

MOST_AT_ONCE = 10_000
"""Tasks that one action may mean."""


class Outcome(msgspec.Struct, frozen=True):
    """What was done.

    :param what: for the log.
    :param text: for the person.
    :param back: the path to go on with, relative.
    """

    what: str
    text: str
    back: str


Act = Callable[[Monitor, Request], Awaitable[Outcome]]


_OF_URLS = "/?&=%#:;+,@!$'()*~"
"""What stands in the address of a page; anything else, such as the end of a line, is escaped."""


class Form:
    """The fields of a form."""

    def __init__(self, fields: Mapping[str, Sequence[str]], root: str) -> None:
        self._fields = fields
        self._root = root

    def one(self, name: str) -> str:
        """Return a field; empty where there is none."""
        return (self._fields.get(name) or [""])[0]

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return list(self._fields.get(name, ()))

    def back(self) -> str:
        """Return where to go on, which never leads out of the dashboard."""
        path = quote(self.one("back").lstrip("/"), safe=_OF_URLS)
        return self._root + (path if ":" not in path.partition("/")[0] and "//" not in path else "")


async def read_form(request: Request) -> Form:
    """Return what was sent. Raises ``Refused`` for more than ``LARGEST`` bytes, and for too many fields."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise Refused("the form is too large")
    path = request.scope["path"].removeprefix(request.scope.get("root_path", "")).lstrip("/")
    try:
        fields = parse_qs(
            body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MOST_AT_ONCE + 100
        )
    except ValueError as error:
        raise Refused("the form has too many fields") from error
    return Form(fields, "../" * path.count("/") or "./")


async def tasks(monitor: Monitor, request: Request) -> Outcome:
    """Retry, cancel, terminate or forget tasks."""
    form = await read_form(request)
    ids = form.all("id")
    if form.one("all"):
        wanted = read_filter(
            {
                name: form.one(name)
                for name in ("state", "name", "queue", "worker", "root", "group", "text", "since", "until")
            },
            monitor.clock.now(),
        )
        ids = await monitor.history.ids(wanted, MOST_AT_ONCE)
    actions = Actions(monitor.app, monitor.history, monitor.lately)
    deeds: Mapping[str, tuple[Work, str]] = {
        "retry": (actions.retry_all, "sent again"),
        "cancel": (actions.cancel, "cancelled"),
        "terminate": (partial(actions.cancel, terminate=True), "terminated"),
        "forget": (actions.forget, "forgotten here"),
    }
    return await _to_many(monitor, form, ids, deeds, "tasks")


async def jobs(monitor: Monitor, request: Request) -> Outcome:
    """Stop what is under way."""
    form = await read_form(request)
    number = form.one("job")

    async def stop() -> str:
        return "stopped" if monitor.jobs.stop(number) else "it had ended already"

    return await _done(f"stop {number}", stop if form.one("action") == "stop" else None, form)


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
        new = await Actions(monitor.app, monitor.history, monitor.lately).retry(
            id, Arguments(list(args), kwargs)
        )
        monitor.forget()
        return f"sent again as {new}"

    return await _done(f"retry {id} with changes", retry, form)


async def queues(monitor: Monitor, request: Request) -> Outcome:
    """Empty, pause or resume a queue."""
    form = await read_form(request)
    name, action = form.one("queue"), form.one("action")
    broker = monitor.app.connections().broker

    async def purge() -> str:
        if name not in await broker.queues():
            raise Refused(f"there is no queue {name}")
        number = await broker.purge(name)
        monitor.forget()
        return f"{counted(number, 'waiting task')} of queue {name} deleted"

    async def pause() -> str:
        takers = await monitor.app.control.pause(name)
        monitor.forget()
        return f"queue {name} is paused; {counted(len(takers), 'worker')} took from it"

    async def resume() -> str:
        await monitor.app.control.resume(name)
        monitor.forget()
        return f"queue {name} goes on"

    async def cancel() -> str:
        ids = form.all("id")
        await Actions(monitor.app, monitor.history, monitor.lately).cancel(ids)
        return f"{counted(len(ids), 'waiting task')} cancelled: no worker runs what it takes of these"

    deeds = {"purge": purge, "pause": pause, "resume": resume, "cancel": cancel}
    return await _done(f"{action} {name}", deeds.get(action), form)


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
    return await _done(f"{form.one('action')} dead {_named(ids)}", deeds.get(form.one("action")), form)


async def failed(monitor: Monitor, request: Request) -> Outcome:
    """Run tasks of the failed list again, or delete their messages."""
    form = await read_form(request)
    ids, kept = form.all("key"), monitor.app.connections().broker.failed
    if form.one("all"):
        ids = [letter.id for letter in await kept.list(MOST_AT_ONCE)]
    actions = Actions(monitor.app, monitor.history, monitor.lately)
    deeds: Mapping[str, tuple[Work, str]] = {
        "retry": (actions.retry_failed, "sent again"),
        "delete": (kept.delete, "deleted"),
    }
    return await _to_many(monitor, form, ids, deeds, "failed tasks")


async def scheduled(monitor: Monitor, request: Request) -> Outcome:
    """Delete tasks that have their time yet to come."""
    form = await read_form(request)
    ids = form.all("id")

    async def cancel() -> str:
        await Actions(monitor.app, monitor.history, monitor.lately).cancel(ids)
        return f"{counted(len(ids), 'task')} cancelled"

    return await _done(f"cancel {_named(ids)}", cancel if form.one("action") == "cancel" else None, form)


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
    return await _done(f"{action} {name}", deeds.get(action), form)


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

    return await _done(f"{action} {node}", steer if given else None, form)


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


async def _done(what: str, deed: Callable[[], Awaitable[str]] | None, form: Form) -> Outcome:
    if deed is None:
        return Outcome(what, "nothing was done: no such action", form.back())
    try:
        text = await deed()
    except CeleriacError as error:
        text = f"not done: {error}"
    return Outcome(what, text, form.back())


async def _to_many(
    monitor: Monitor, form: Form, ids: Sequence[str], deeds: Mapping[str, tuple[Work, str]], what: str
) -> Outcome:
    """Do one of the deeds to tasks, a large number of them in the background."""
    action = form.one("action")
    work, word = deeds.get(action, (None, ""))

    async def do() -> str:
        assert work is not None
        job = await monitor.jobs.run(f"{action} {what}", ids, work)
        monitor.forget()
        if job.under_way:
            return f"{counted(len(ids), 'task')}: under way, see About"
        return f"{counted(job.done, 'task')} {word}" + (f"; not: {job.trouble}" if job.trouble else "")

    return await _done(f"{action} {_named(ids)}", do if work else None, form)


def _named(ids: Sequence[str]) -> str:
    return " ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


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
