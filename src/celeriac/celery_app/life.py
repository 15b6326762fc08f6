"""A worker's life, and what becomes of its messages, as Celery's signals tell it.

Rules: a signal is sent only where it has receivers; receivers run on the worker's event loop, as they run in the main
thread of Celery's worker, and block it for as long as they take.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from signal import SIGINT, SIGTERM
from typing import Any

from celery import Celery, signals
from celery._state import _set_task_join_will_block
from celery.app.task import Context as Request
from celery.app.trace import LOG_RECEIVED, setup_worker_optimizations
from celery.exceptions import NotRegistered
from celery.utils.nodenames import node_format
from kombu.message import Message

from celeriac.celery_app.beside_loop import beside_loop
from celeriac.celery_app.children import begin_process
from celeriac.celery_app.coroutines import Coroutines
from celeriac.celery_app.log import say_stopping
from celeriac.celery_app.options import options_of
from celeriac.celery_app.queues import declare, select
from celeriac.celery_app.received import Received
from celeriac.celery_app.request import headers_of
from celeriac.celery_app.run import as_celerys, informed
from celeriac.contracts.broker import Delivery
from celeriac.errors import TaskNotFound
from celeriac.wire.envelope import Unreadable
from celeriac.wire.result import FAILURE, REVOKED
from celeriac.worker.attempt import Attempt
from celeriac.worker.listeners import Listener, Made

received_log = logging.getLogger("celery.worker.strategy")
"""Where Celery's worker tells of a message; what reads its log looks for this name, text and ``data``."""

worker_log = logging.getLogger("celery.apps.worker")
"""Where Celery's worker tells that it is ready; scripts wait for that line."""

POOL_CLASSES = {
    "processes": "celery.concurrency.prefork:TaskPool",
    "threads": "celery.concurrency.thread:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
}


class WorkerFace:
    """What receivers of the worker's signals look at (Celery: ``WorkController``).

    :param options: those of ``celeryd_init``: ``loglevel``, ``logfile``, ``pidfile`` and the others are attributes too.
    """

    def __init__(self, app: Celery, worker: Made, options: Mapping[str, Any]) -> None:
        vars(self).update(options)
        self.options = dict(options)
        self.pool = None
        self.pidfile = node_format(options["pidfile"], worker.name) if options["pidfile"] else None
        self.app = app
        self.hostname = worker.name
        self.concurrency = worker.concurrency
        self.queues = list(worker.queues)
        # Django's fixup looks at these two, and closes connections by them.
        self.pool_cls = POOL_CLASSES[worker.pool]
        self.pid = os.getpid()

    def __str__(self) -> str:
        return self.hostname


class ConsumerFace:
    """What receivers of ``worker_ready`` and ``task_received`` get as sender (Celery: ``Consumer``)."""

    def __init__(self, app: Celery, controller: WorkerFace) -> None:
        self.app = app
        self.controller = controller
        self.hostname = controller.hostname
        self.pid = controller.pid

    def __str__(self) -> str:
        return self.hostname


@beside_loop()
def begin_beat(app: Celery, beside_tasks: bool) -> None:
    """Announce that periodic tasks are ticked here.

    :param beside_tasks: in a worker (Celery: ``celery worker --beat``).
    """
    face = BeatFace(app)
    signals.beat_init.send(sender=face)
    if beside_tasks:
        signals.beat_embedded_init.send(sender=face)


class BeatFace:
    """What receivers of ``beat_init`` get as sender (Celery: ``beat.Service``)."""

    def __init__(self, app: Celery) -> None:
        self.app = app


class Life(Listener):
    """Sends Celery's signals for what a worker does.

    :param on_made: called with the worker, before it starts.
    :param coroutines: gets the event loop of the worker.
    :param said: what the command line says; see ``options_of``.
    """

    def __init__(
        self, app: Celery, on_made: Callable[[Made], None], coroutines: Coroutines, said: Mapping[str, Any]
    ) -> None:
        self._app = app
        self._said = said
        self._on_made = on_made
        self._coroutines = coroutines
        self._made: Made | None = None
        self._worker: WorkerFace | None = None
        self._consumer: ConsumerFace | None = None

    def worker_made(self, worker: Made) -> None:
        self._made = worker
        self._on_made(worker)

    def worker_starting(self, node: str) -> None:
        assert self._made is not None
        if self._made.pool == "threads":
            self._coroutines.live_on(asyncio.get_running_loop())
        self._start(node, self._made)

    @beside_loop()
    def _start(self, node: str, made: Made) -> None:
        app = self._app
        options = options_of(app, made.pool, self._said)
        self._worker = worker = WorkerFace(app, made, options)
        self._consumer = ConsumerFace(app, worker)
        app.loader.init_worker()
        unknown = select(app, made.queues)
        setup_worker_optimizations(app, node)
        signals.celeryd_init.send(sender=node, instance=worker, conf=app.conf, options=options)
        signals.worker_init.send(sender=worker)
        signals.celeryd_after_setup.send(sender=node, instance=worker, conf=app.conf)
        # Receivers add and remove queues of single workers, as Celery's documentation shows.
        chosen = list(app.amqp.queues.consume_from)
        made.take_from([*chosen, *unknown])
        declare(app, chosen)
        _set_task_join_will_block(True)
        if made.pool != "processes":
            begin_process(app, node)

    @beside_loop()
    def worker_ready(self, node: str) -> None:
        signals.worker_ready.send(sender=self._consumer)
        worker_log.info("%s ready.", node)

    def heartbeat(self, node: str) -> None:
        if signals.heartbeat_sent.receivers:
            self._say_alive()

    @beside_loop()
    def _say_alive(self) -> None:
        signals.heartbeat_sent.send(sender=self._consumer)

    @beside_loop()
    def worker_stopping(self, node: str) -> None:
        stop = None if self._made is None else self._made.stopped_by
        number, quick = (SIGTERM, False) if stop is None else (stop.number, stop.quick)
        how, code = "Cold" if quick else "Warm", int(quick or number == SIGINT)
        if stop is not None:
            say_stopping(how)
        signals.worker_shutting_down.send(sender=node, sig=number.name, how=how, exitcode=code)

    def worker_hurrying(self, node: str, seconds: float) -> None:
        assert self._made is not None
        if self._made.stopped_by is not None and not self._made.stopped_by.quick:
            say_stopping("Cold")
        if seconds:
            worker_log.warning("Initiating Soft Shutdown, terminating in %g seconds", seconds)

    @beside_loop()
    def worker_stopped(self, node: str) -> None:
        signals.worker_shutdown.send(sender=self._worker)
        self._coroutines.live_on(None)
        _set_task_join_will_block(False)

    def started(self, attempt: Attempt) -> None:
        if received_log.isEnabledFor(logging.INFO):
            _log_received(attempt)
        if signals.task_received.receivers:
            self._say_received(attempt)

    @beside_loop()
    def _say_received(self, attempt: Attempt) -> None:
        assert self._worker is not None
        request = Received(attempt, self._app, self._worker.hostname)
        signals.task_received.send(sender=self._consumer, request=request)

    def ended(self, attempt: Attempt) -> None:
        decision = attempt.decision
        if decision is None or attempt.is_concluded:
            return
        if decision.state == REVOKED:
            self._say_revoked(attempt, terminated=True)
        elif decision.state == FAILURE and decision.error is not None:
            self._say_failed(attempt, as_celerys(decision.error))

    @beside_loop()
    def _say_failed(self, attempt: Attempt, error: BaseException) -> None:
        message = attempt.message
        einfo = informed(error)
        signals.task_failure.send(
            sender=dict.get(self._app.tasks, message.task),
            task_id=message.id,
            exception=error,
            args=message.args,
            kwargs=message.kwargs,
            traceback=einfo.traceback,  # the text, as from Celery's main process
            einfo=einfo,
        )

    def declined(self, attempt: Attempt) -> None:
        if attempt.decision is not None and attempt.decision.state == REVOKED:
            if received_log.isEnabledFor(logging.INFO):
                _log_received(attempt)
            self._say_revoked(attempt, terminated=False)

    @beside_loop()
    def _say_revoked(self, attempt: Attempt, *, terminated: bool) -> None:
        decision, message = attempt.decision, attempt.message
        signals.task_revoked.send(
            sender=dict.get(self._app.tasks, message.task),
            request=Request(headers_of(message), args=message.args, kwargs=message.kwargs),
            terminated=terminated,
            signum=attempt.signal if terminated else None,
            expired=decision is not None and decision.reason == "expired",
        )

    @beside_loop()
    def refused(self, attempt: Attempt) -> None:
        decision, message = attempt.decision, attempt.message
        error: Any = None if decision is None else decision.error
        raw = _as_kombus(attempt.delivery)
        if isinstance(error, TaskNotFound):
            unknown = NotRegistered(message.task)
            signals.task_unknown.send(
                sender=self._consumer, message=raw, exc=unknown, name=message.task, id=message.id
            )
        else:
            signals.task_rejected.send(sender=self._consumer, message=raw, exc=error)


def _as_kombus(delivery: Delivery) -> Message:
    """Return a message that cannot run here as receivers know it; it is settled, so they can only look at it."""
    envelope = delivery.envelope
    info = {"exchange": "", "routing_key": delivery.queue, "redelivered": delivery.redelivered}
    if isinstance(envelope, Unreadable):
        return Message(body=envelope.raw, delivery_info=info)
    properties = {"correlation_id": envelope.correlation_id, "reply_to": envelope.reply_to}
    return Message(
        body=envelope.body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        headers=dict(envelope.headers),
        properties={**properties, "priority": envelope.priority},
        delivery_info=info | {"exchange": envelope.exchange, "routing_key": envelope.routing_key},
    )


def _log_received(attempt: Attempt) -> None:
    message = attempt.message
    facts = {
        "id": message.id,
        "name": message.shadow or message.task,
        "args": message.args_repr,
        "kwargs": message.kwargs_repr,
        "eta": message.eta,
    }
    extra = {"data": facts, "task_id": message.id, "task_name": facts["name"]}
    received_log.info(LOG_RECEIVED, facts, extra=extra)
