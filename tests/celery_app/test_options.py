"""What receivers of ``celeryd_init`` get as ``options``: what Celery's own worker gives for the same command line."""

import os
import re
import subprocess
import sys

import pytest

from tests.celery_app.conftest import ROOT, TIMEOUT
from tests.servers import RedisServer

LINES = {
    "none": (),  # but for the level of the log, which is info without ``-l``, and Celery's warning
    "queues": ("-Q", "a,b", "-X", "c", "-P", "threads", "-c", "3", "-E"),
    "limits": ("--time-limit", "10", "--soft-time-limit", "5.5", "--max-tasks-per-child", "5", "-P", "solo"),
    "files": ("-f", "{place}/log", "--pidfile", "{place}/pid", "-S", "{place}/state", "-I", "json,re"),
    "more": ("--autoscale", "5,2", "-E", "--purge", "-O", "fair", "--max-memory-per-child", "7000"),
    "beat": ("-B", "-s", "{place}/schedule", "--scheduler", "celery.beat:PersistentScheduler"),
    "without": ("--without-gossip", "--without-mingle", "--without-heartbeat", "--heartbeat-interval", "3"),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_they_are_celerys(redis_server: RedisServer, tmp_path, line: tuple[str, ...]):
    options = ["-l", "error", *(part.format(place=tmp_path) for part in line)]
    celerys, ours = (told(side, redis_server.url(), options) for side in ("celery", "celeriac"))
    assert {name: ours.get(name, "missing") for name in celerys} == celerys


def told(side: str, broker: str, options: list[str]) -> dict[str, str]:
    """The options, each as it is written."""
    command = [sys.executable, "-m", side, "-A", "tests.celery_app.options_app", "worker", *options]
    environment = {**os.environ, "OPTIONS_BROKER": broker}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    found = re.search(r"options: \{(.*)\}", done.stdout + done.stderr)
    assert found is not None, done.stdout + done.stderr
    return dict(pair.split(": ", 1) for pair in re.split(r", (?='\w+': )", found[1]))
