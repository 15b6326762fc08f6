"""What the buttons of the pages of queues and of scheduled tasks do."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from starlette.requests import Request

from celeriac.client.removing import Waiting, all_parked, cancel_parked
from celeriac.monitor.again import Refused
from celeriac.monitor.monitor import Monitor
from celeriac.web.forms import Form, Outcome, done, named, read_form
from celeriac.wire.preview import counted


async def queues(monitor: Monitor, request: Request) -> Outcome:
    """Pause, resume or empty a queue; cancel or delete some of what waits there."""
    form = await read_form(request)
    deeds = _Deeds(monitor, form)
    action = form.one("action")
    known = {
        "pause": deeds.pause,
        "resume": deeds.resume,
        "purge": deeds.purge,
        "cancel": deeds.cancel,
        "delete": deeds.delete,
        "delete_task": deeds.delete_task,
    }
    which = " ".join(part for part in (named(form.all("key")), form.one("task")) if part)
    return await done(f"{action} {form.one('queue')} {which}".rstrip(), known.get(action), form)


async def scheduled(monitor: Monitor, request: Request) -> Outcome:
    """Revoke tasks that have their time yet to come, and delete their messages."""
    form = await read_form(request)
    keys = set(form.all("key"))

    async def cancel() -> str:
        left, entries = set(keys), []
        async for entry in all_parked(monitor.app):
            if entry.id in left:
                left.discard(entry.id)
                entries.append(entry)
            if not left:
                break
        await cancel_parked(monitor.app, entries)
        monitor.forget()
        return f"{counted(len(entries), 'task')} cancelled"

    deed = cancel if form.one("action") == "cancel" else None
    return await done(f"cancel scheduled {named(sorted(keys))}", deed, form)


class _Deeds:
    """What the buttons of one queue's page do; each returns what to tell."""

    def __init__(self, monitor: Monitor, form: Form) -> None:
        self._monitor = monitor
        self._form = form
        self._name = form.one("queue")
        self._keys = set(form.all("key"))
        self._actions = monitor.actions

    async def pause(self) -> str:
        takers = await self._monitor.app.control.pause(self._name)
        self._monitor.forget()
        return f"queue {self._name} is paused; {counted(len(takers), 'worker')} took from it"

    async def resume(self) -> str:
        await self._monitor.app.control.resume(self._name)
        self._monitor.forget()
        return f"queue {self._name} goes on"

    async def purge(self) -> str:
        await self._require_queue()
        number = await self._monitor.app.connections().broker.purge(self._name)
        self._monitor.forget()
        return f"{counted(number, 'waiting task')} of queue {self._name} deleted"

    async def cancel(self) -> str:
        ids = [key for key in self._form.all("key") if not key.startswith("#")]
        await self._actions.cancel(ids)
        return f"{counted(len(ids), 'waiting task')} cancelled: no worker runs what it takes of these"

    async def delete(self) -> str:
        return await self._remove(lambda one: one.key in self._keys, len(self._keys))

    async def delete_task(self) -> str:
        pattern = self._form.one("task")
        if not pattern:
            raise Refused("name the task whose messages are to be deleted")
        return await self._remove(lambda one: one.task == pattern or fnmatchcase(one.task, pattern), None)

    async def _remove(self, chosen: Callable[[Waiting], bool], most: int | None) -> str:
        await self._require_queue()
        monitor = self._monitor
        depth = await monitor.app.connections().broker.depth(self._name)
        steps = self._actions.remove(self._name, chosen, most)
        job = await monitor.jobs.follow(f"delete in queue {self._name}", depth, steps)
        monitor.forget()
        if job.under_way:
            return f"{counted(job.done, 'waiting task')} deleted so far: under way, see About"
        gone = "" if most is None or job.done >= most else f"; {most - job.done} did not wait any more"
        trouble = f"; {job.trouble}" if job.trouble else ""
        return f"{counted(job.done, 'waiting task')} of queue {self._name} deleted{gone}{trouble}"

    async def _require_queue(self) -> None:
        broker = self._monitor.app.connections().broker
        if self._name not in await self._monitor.queues.names(broker):
            raise Refused(f"there is no queue {self._name}")
