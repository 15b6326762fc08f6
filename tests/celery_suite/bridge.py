"""Put in place of the suite's session worker: a worker that is a process of its own, as in production.

Some tests look into the memory of a worker that they expect in their own process. What they look for is brought there:
received tasks and lines of the log by ``relay``, requests that succeeded by Celery's events. Revoked stamps, which
tests clear in that memory, are forgotten by the broker and by a worker that starts anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.signals import task_received
from celery.utils.nodenames import anon_nodename
from celery.worker import state
from kombu.utils.json import loads

from celeriac import Celeriac
from celeriac.contracts.board import REVOKED

WAIT = 60.0
"""Seconds that a worker has to answer."""


class SuiteWorker:
    """The worker that ``SUITE_WORKER`` names."""

    def __init__(self, app: Celery, relay: str) -> None:
        self._app = app
        # The name that the tests ask for.
        self._command = shlex.split(os.environ["SUITE_WORKER"].replace("NODE", anon_nodename()))
        self._environment = {**os.environ, "SUITE_RELAY": relay}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; return when it answers and says that it is ready: one of ours answers while its children start."""
        place = Path(os.environ["SUITE_LOG"])
        with place.open("a") as log:
            earlier = log.tell()
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + WAIT
        while not (self._app.control.ping(timeout=1.0) and b" ready" in place.read_bytes()[earlier:]):
            assert self._process.poll() is None, "the worker ended"
            assert time.monotonic() < deadline, "the worker does not answer"

    def stop(self) -> None:
        """End it and its children at once: what it still runs is of no interest, and some tests leave much behind."""
        assert self._process is not None
        os.killpg(self._process.pid, SIGKILL)
        self._process.wait(WAIT)

    def clear(self) -> None:
        """Forget all revoked stamps (``worker_state.revoked_stamps.clear()`` in the tests)."""
        self.stop()
        asyncio.run(_forget_revoked(self._app.conf.broker_url))
        self.start()


class RevokedIds:
    """The ids that the worker says are revoked (``worker_state.revoked`` in the tests)."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def as_dict(self) -> dict[str, float]:
        """Return them, each with a moment of this process's clock."""
        answers = self._app.control.inspect().revoked() or {}
        return {task_id: time.monotonic() for ids in answers.values() for task_id in ids}

    def discard(self, task_id: str) -> None:
        """Do nothing: no other test has that id."""


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Celery, celery_includes: set[str], celery_class_tasks: list[type]
) -> Iterator[SuiteWorker]:
    """Start the worker, wait until it answers, and stop it at the end."""
    app = celery_session_app
    for module in celery_includes:
        app.loader.import_task_module(module)
    for kind in celery_class_tasks:
        app.register_task(kind)
    wait_for_revocations(app)
    with hearing() as relay, counting_successes(app):
        worker = SuiteWorker(app, relay)
        worker.start()
        state.revoked_stamps = worker
        state.revoked = RevokedIds(app)
        yield worker
        worker.stop()


def wait_for_revocations(app: Celery) -> None:
    """Let a test go on when the worker has taken its revocation in: it sends next what must not run.

    An order and a message reach a worker over two connections, and a busy one may read the second first.
    """
    usual = app.control.revoke_by_stamped_headers

    def revoke_by_stamped_headers(*args: Any, **options: Any) -> Any:
        return usual(*args, **{"limit": 1, **options, "reply": True, "timeout": WAIT})

    app.control.revoke_by_stamped_headers = revoke_by_stamped_headers


@contextmanager
def hearing() -> Iterator[str]:
    """Hear what the worker's relay tells; yield where."""
    with tempfile.TemporaryDirectory(prefix="suite-") as directory:
        place = str(Path(directory, "relay"))
        with _Listener(place, _Heard) as listener:
            threading.Thread(target=listener.serve_forever, daemon=True).start()
            yield place
            listener.shutdown()


class _Listener(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


class _Heard(socketserver.StreamRequestHandler):
    """One process of the worker."""

    def handle(self) -> None:
        """Take each fact in, and let the worker go on."""
        for line in self.rfile:
            fact = loads(line)
            try:
                if "received" in fact:
                    task_received.send(sender=None, request=_request(fact["received"]))
                else:
                    _log(**fact["log"])
            finally:
                self.wfile.write(b"\n")


def _request(facts: dict[str, Any]) -> SimpleNamespace:
    payload = facts.pop("payload")
    return SimpleNamespace(**facts, _Request__payload=payload)


def _log(name: str, levelno: int, levelname: str, msg: str, text: str, data: Any) -> None:
    facts = {"name": name, "levelno": levelno, "levelname": levelname, "msg": msg, "message": text}
    record = logging.makeLogRecord({**facts, "data": data or {}})
    record.getMessage = lambda: text  # type: ignore[method-assign]
    logging.getLogger(name).handle(record)


@contextmanager
def counting_successes(app: Celery) -> Iterator[None]:
    """Keep ``worker_state.successful_requests`` by what the worker's events tell."""
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-succeeded": _succeeded})
        capture = threading.Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
        capture.start()
        yield
        receiver.should_stop = True
        capture.join(WAIT)


def _succeeded(event: dict[str, Any]) -> None:
    state.successful_requests.add(event["uuid"])


async def _forget_revoked(broker: str) -> None:
    """Let the broker forget what celeriac keeps there; Celery's workers have it in their memory alone."""
    async with Celeriac("suite", broker=broker) as app:
        board = app.connections().broker.board
        assert board is not None
        kinds = ("stamps", "terminate")
        kept = await board.sets.load(REVOKED, kinds)
        await board.sets.remove(REVOKED, {kind: kept.sets[kind] for kind in kinds})
