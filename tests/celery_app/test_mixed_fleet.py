"""A Celery worker and a celeriac worker of one app take from one queue, as they do while a fleet moves."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain, chord, group

from tests.celery_app.conftest import ROOT, START, TIMEOUT, Shop, StartShop
from tests.celery_connections import disconnect
from tests.servers import LoggedProcess, RedisServer


@pytest.fixture(scope="module")
def fleet(client: Any, start_shop: StartShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = start_shop("-P", "processes", "-c", "2", "-n", "ours@fleet")
    conf = client.app.conf
    variables = {
        **os.environ,
        "C_FORCE_ROOT": "1",
        "SHOP_BROKER": conf.broker_url,
        "SHOP_BACKEND": conf.result_backend,
        "SHOP_QUEUE": conf.task_default_queue,
        "SHOP_NOTES": str(tmp_path_factory.mktemp("celery") / "notes"),
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.celery_app.shop", "worker", "-P", "prefork"]
    command += ["-c", "2", "-n", "celerys@fleet", "-l", "info", "--without-gossip", "--without-mingle"]
    process = LoggedProcess(command, env=variables, cwd=ROOT)
    process.wait_for("celerys@fleet ready", timeout=START)
    yield shop
    process.stop()


def test_both_take_part_in_everything(client: Any, fleet: Shop):
    add = client.add
    hosts: set[str] = set()
    for _ in range(50):
        round_ = [client.request.delay() for _ in range(8)]
        hosts |= {one.get(timeout=TIMEOUT)["hostname"] for one in round_}
        if len(hosts) == 2:
            break
    assert hosts == {"ours@fleet", "celerys@fleet"}
    chains = [chain(add.s(i, 1), add.s(1), add.s(1)).apply_async() for i in range(10)]
    chords = [chord([add.s(i, j) for j in range(5)])(client.total.s()) for i in range(10)]
    retried = [client.flaky.delay(2) for _ in range(5)]
    replaced = [client.replaced.delay(i) for i in range(5)]
    groups = [group(add.s(i, j) for j in range(4)).apply_async() for i in range(3)]
    failed = [client.fail.apply_async(link_error=client.told.s()) for _ in range(5)]
    assert [one.get(timeout=TIMEOUT) for one in chains] == [i + 3 for i in range(10)]
    assert [one.get(timeout=TIMEOUT) for one in chords] == [5 * i + 10 for i in range(10)]
    assert [one.get(timeout=TIMEOUT) for one in retried] == [2] * 5
    assert [one.get(timeout=TIMEOUT) for one in replaced] == [(i + 10) * 2 for i in range(5)]
    assert [one.get(timeout=TIMEOUT) for one in groups] == [[i + j for j in range(4)] for i in range(3)]
    for one in failed:
        with pytest.raises(RuntimeError, match="as asked"):
            one.get(timeout=TIMEOUT)


PATIENCE = 120
"""Seconds for one answer: two workers start beside each other."""


class Roller:
    """A client that goes on sending while workers come and go, and looks in the end whether everything ran once."""

    def __init__(self, broker: str, backend: str, directory: Path) -> None:
        self.app = Celery("roller", broker=broker, backend=backend, set_as_current=False)
        self.app.conf.task_default_queue = f"rolling-{uuid4()}"
        self._directory = directory
        self._sent: list[tuple[Any, Any]] = []
        self._told: list[str] = []
        self._processes: list[LoggedProcess] = []

    def start(self, *command: str) -> LoggedProcess:
        """Start a worker, Celery's or ours."""
        variables = {
            **os.environ,
            "C_FORCE_ROOT": "1",
            "SHOP_BROKER": self.app.conf.broker_url,
            "SHOP_BACKEND": self.app.conf.result_backend,
            "SHOP_QUEUE": self.app.conf.task_default_queue,
            "SHOP_NOTES": str(self._directory / "notes"),
        }
        options = ["-A", "tests.celery_app.shop", "worker", "-c", "2", "-l", "info"]
        process = LoggedProcess(
            [sys.executable, "-m", command[0], *options, *command[1:]], env=variables, cwd=ROOT
        )
        self._processes.append(process)
        process.wait_for(" ready", timeout=START)
        return process

    def round(self) -> set[str]:
        """Send some of everything; return the names of the workers that answered."""
        s = self._signature
        for i in range(3):
            self._sent.append((chain(s("add", i, 1), s("add", 1), s("add", 1)).apply_async(), i + 3))
            self._sent.append((chord([s("add", i, j) for j in range(3)])(s("total")), 3 * i + 3))
            self._sent.append((s("flaky", 1).apply_async(), 1))
            self._told.append(str(uuid4()))
            self._sent.append((s("told", self._told[-1]).apply_async(), None))
        asked = [s("request").apply_async() for _ in range(4)]
        return {one.get(timeout=PATIENCE)["hostname"].partition("@")[0] for one in asked}

    def until(self, hosts: set[str]) -> None:
        """Send until these workers, and no others, have answered a round or several of them together."""
        deadline, seen = time.monotonic() + PATIENCE, set[str]()
        while (found := self.round()) and not (hosts <= (seen := seen | found) and found <= hosts):
            assert time.monotonic() < deadline, (hosts, seen, [process.output for process in self._processes])

    def verify(self) -> None:
        """Everything gave what it should, and ran once."""
        for result, expected in self._sent:
            assert result.get(timeout=PATIENCE) == expected
        notes = [json.loads(line) for line in (self._directory / "notes").read_text().splitlines()]
        assert Counter(note[1] for note in notes if note[0] == "told") == Counter(self._told)

    def close(self) -> None:
        """Stop what is left."""
        for process in self._processes:
            process.stop()
        disconnect(self.app)

    def _signature(self, name: str, *args: Any) -> Any:
        return self.app.signature(f"tests.celery_app.shop.{name}", args)


@pytest.fixture(params=["redis", "amqp"])
def roller(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Iterator[Roller]:
    redis = redis_server.url()
    broker = redis if request.param == "redis" else request.getfixturevalue("rabbit_server").url()
    made = Roller(broker, redis, tmp_path)
    yield made
    made.close()


def ended(process: LoggedProcess) -> None:
    """Stop a worker as a deployment does."""
    os.kill(process.pid, signal.SIGTERM)
    process.wait(timeout=PATIENCE)


@pytest.mark.timeout(300)
def test_a_fleet_moves_and_moves_back(roller: Roller) -> None:
    celerys = roller.start("celery", "-P", "prefork", "-n", "celerys@one")
    roller.until({"celerys"})
    ours = roller.start("celeriac", "-P", "processes", "-n", "ours@one")
    roller.until({"celerys", "ours"})
    ended(celerys)
    roller.until({"ours"})
    again = roller.start("celery", "-P", "prefork", "-n", "again@one")
    roller.until({"ours", "again"})
    ended(ours)
    roller.until({"again"})
    ended(again)
    roller.start("celeriac", "-P", "threads", "-n", "last@one")
    roller.until({"last"})
    roller.verify()
