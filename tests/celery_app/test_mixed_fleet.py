"""A Celery worker and a celeriac worker of one app take from one queue, as they do while a fleet moves."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group

from tests.celery_app.conftest import ROOT, TIMEOUT, Shop, StartShop
from tests.servers import LoggedProcess


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
    process.wait_for("celerys@fleet ready")
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
