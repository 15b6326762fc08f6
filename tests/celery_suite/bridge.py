"""Put in place of the suite's session worker: a worker that is a process of its own, as in production."""

import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from celery.utils.nodenames import anon_nodename


@pytest.fixture(scope="session")
def celery_session_worker(celery_session_app, celery_includes, celery_class_tasks):
    """Start the worker that ``SUITE_WORKER`` names, wait until it answers, and stop it at the end."""
    app = celery_session_app
    for module in celery_includes:
        app.loader.import_task_module(module)
    for kind in celery_class_tasks:
        app.register_task(kind)
    command = os.environ["SUITE_WORKER"].replace("NODE", anon_nodename())  # the name that the tests ask for
    with Path(os.environ["SUITE_LOG"]).open("w") as log:
        worker = subprocess.Popen(shlex.split(command), stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not app.control.ping(timeout=1.0):
            assert worker.poll() is None, "the worker ended"
            assert time.monotonic() < deadline, "the worker does not answer"
        yield worker
        worker.terminate()
        worker.wait(60)
