"""Joins one backend of the setting ``TASKS`` to the app that its option ``APP`` names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.module_loading import import_string

from celeriac.client.app import App
from celeriac.integrations.django_bridge.carrier import Carrier
from celeriac.integrations.django_bridge.celerys import CeleryCarrier
from celeriac.integrations.django_bridge.facts import Facts, Outcome, Stored
from celeriac.integrations.django_bridge.framework import Framework
from celeriac.integrations.django_bridge.own import OwnCarrier
from celeriac.integrations.django_bridge.running import Call, Run, put, result_of, task_at
from celeriac.servers.ids import new_id
from celeriac.wire.result import FAILURE, PENDING, RETRY, REVOKED, SUCCESS


class Bridge:
    """What a backend does.

    Rules: the app is imported when it is first needed, since its module may call ``django.setup()``, which imports
    tasks; a task that is defined before that is registered with the app then.

    :param package: of the framework.
    :param sender: the backend's class, which Django's signals name as their sender.
    :param alias: the backend's name in ``TASKS``.
    """

    def __init__(
        self, package: str, frame: Framework, sender: type, alias: str, options: Mapping[str, Any]
    ) -> None:
        self.package = package
        self.alias = alias
        self._frame = frame
        self._sender = sender
        self._target = str(options.get("APP") or "")
        self._known: dict[str, Any] = {}

    @cached_property
    def app(self) -> Any:
        """The app. Raises ``ImproperlyConfigured`` where the option is missing, or names no app."""
        if not self._target:
            raise ImproperlyConfigured(
                f"TASKS[{self.alias!r}]: name the app whose workers run the tasks: "
                'OPTIONS = {"APP": "proj.celery:app"}'
            )
        try:
            app = import_string(self._target.replace(":", "."))
        except ImportError as error:
            raise ImproperlyConfigured(f"TASKS[{self.alias!r}]: APP {self._target!r}: {error}") from error
        if not isinstance(app, App) and not hasattr(app, "send_task"):
            raise ImproperlyConfigured(
                f"TASKS[{self.alias!r}]: APP {self._target!r} is no Celeriac and no Celery, but a {type(app).__name__}"
            )
        return app

    @cached_property
    def carrier(self) -> Carrier:
        """What carries the tasks; all that are known so far are registered with it."""
        app = self.app
        carrier: Carrier = OwnCarrier(app, self) if isinstance(app, App) else CeleryCarrier(app, self)
        for task in self._known.values():
            carrier.register(task)
        return carrier

    # --- tasks

    def know(self, task: Any) -> None:
        """Register a task with the app, now or when the app is first needed."""
        path = task.module_path
        if path not in self._known:
            self._known[path] = task
            if "carrier" in vars(self) or self._is_loaded():
                self.carrier.register(task)

    def find(self, path: str) -> Any:
        """Return the task of that path, as a worker runs it. Raises ``ConfigError`` where there is none."""
        return task_at(self._frame, path)

    def _is_loaded(self) -> bool:
        """Whether the app's module has been imported to its end, so that it can be used without importing anything."""
        module, _, name = self._target.replace(":", ".").rpartition(".")
        return hasattr(sys.modules.get(module), name) if name else False

    # --- sending

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Send a call; return its ``TaskResult``."""
        result, facts = self._described(task, args, kwargs)
        if self.carrier.keeps_results:
            self.carrier.keep(result.id, facts)
        self.carrier.send(result.id, facts)
        self._frame.enqueued.send(self._sender, task_result=result)
        return result

    async def aenqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Do as ``enqueue`` without blocking the loop."""
        result, facts = self._described(task, args, kwargs)
        if self.carrier.keeps_results:
            await self.carrier.akeep(result.id, facts)
        await self.carrier.asend(result.id, facts)
        await self._frame.enqueued.asend(self._sender, task_result=result)
        return result

    def _described(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Facts]:
        facts = Facts(
            task=task.module_path,
            alias=self.alias,
            queue=task.queue_name,
            priority=task.priority,
            enqueued_at=timezone.now(),
            args=self._frame.normalize(list(args)),
            kwargs=self._frame.normalize(dict(kwargs)),
            run_after=task.run_after,
        )
        return result_of(self._frame, new_id(), facts, task, self._frame.status.READY), facts

    # --- results

    def result(self, task_id: str) -> Any:
        """Return the ``TaskResult`` of an id. Raises ``TaskResultDoesNotExist``."""
        self._require_results()
        return self._read(task_id, self.carrier.load(task_id))

    async def aresult(self, task_id: str) -> Any:
        """Do as ``result`` without blocking the loop."""
        self._require_results()
        return self._read(task_id, await self.carrier.aload(task_id))

    def _require_results(self) -> None:
        if not self.carrier.keeps_results:
            raise NotImplementedError(
                f"TASKS[{self.alias!r}]: the app {self._target!r} keeps no results that can be read by id: give it "
                "a result backend, such as redis://"
            )

    def _read(self, task_id: str, stored: Stored) -> Any:
        facts, outcome = stored.facts, stored.outcome
        if facts is None:
            raise self._frame.missing(task_id)
        task = task_at(self._frame, facts.task)
        result = result_of(self._frame, task_id, facts, task, self._status(facts, outcome))
        if outcome is not None and outcome.state == SUCCESS:
            put(result, _return_value=outcome.value, finished_at=outcome.ended_at)
        elif outcome is not None and outcome.state in (FAILURE, REVOKED, RETRY):
            result.errors.append(
                self._frame.error(
                    exception_class_path=outcome.error or "builtins.Exception", traceback=outcome.traceback
                )
            )
            if outcome.state != RETRY:
                put(result, finished_at=outcome.ended_at)
        return result

    def _status(self, facts: Facts, outcome: Outcome | None) -> Any:
        status = self._frame.status
        state = PENDING if outcome is None else outcome.state
        if state == PENDING:
            return status.READY if facts.started_at is None else status.RUNNING
        known = {
            SUCCESS: status.SUCCESSFUL,
            FAILURE: status.FAILED,
            REVOKED: status.FAILED,
            RETRY: status.READY,
        }
        return known.get(state, status.RUNNING)

    # --- running

    def run(self, path: str, call: Call) -> Any:
        """Run a plain function; return its value."""
        run = self._begin(path, call, self.carrier.load(call.id) if self._was_noted(call) else None)
        if self.carrier.keeps_results:
            self.carrier.keep(call.id, run.facts)
        with run.told():
            return run.returned(run.function(*run.args, **run.kwargs))

    async def arun(self, path: str, call: Call) -> Any:
        """Run a coroutine function; return its value."""
        run = self._begin(path, call, await self.carrier.aload(call.id) if self._was_noted(call) else None)
        if self.carrier.keeps_results:
            await self.carrier.akeep(call.id, run.facts)
        async with run.atold():
            return run.returned(await run.function(*run.args, **run.kwargs))

    def _was_noted(self, call: Call) -> bool:
        return call.is_again and self.carrier.keeps_results

    def _begin(self, path: str, call: Call, stored: Stored | None) -> Run:
        facts = call.facts(path, self.alias)
        if stored is not None and stored.facts is not None:
            facts = stored.facts
        return Run(self._frame, self._sender, task_at(self._frame, path), call, facts)
