"""A worker of a Celery app stops as Celery's does: it waits for its tasks without limit, unless told to hurry."""

import os
import time
from pathlib import Path
from signal import SIGINT, SIGQUIT, SIGTERM
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from tests.celery_app.conftest import TIMEOUT, StartShop


def running(client: Any, directory: Path) -> tuple[Any, Path]:
    """A task that runs until a file is there."""
    go_on = directory / "go-on"
    result = client.progress.delay(str(go_on))
    while (state := result.state) != "PROGRESS":
        assert state == "PENDING"
        time.sleep(0.05)
    return result, go_on


def test_the_first_signal_waits_for_what_was_acknowledged_early(
    client: Any, start_shop: StartShop, tmp_path: Path
):
    shop = start_shop("-P", "threads", "-c", "1")
    result, go_on = running(client, tmp_path)
    os.kill(shop.process.pid, SIGTERM)
    shop.process.wait_for("as long as it needs")
    go_on.touch()
    assert shop.process.wait(timeout=TIMEOUT) == 0
    assert result.get(timeout=TIMEOUT) == "done"


@pytest.mark.parametrize(
    ("number", "environment"),
    [(SIGQUIT, {}), (SIGTERM, {"REMAP_SIGTERM": "SIGQUIT"})],
    ids=["quit", "remapped"],
)
def test_a_quick_stop_gives_no_time(
    client: Any, start_shop: StartShop, tmp_path: Path, number: int, environment: dict[str, str]
):
    shop = start_shop("-P", "processes", "-c", "1", **environment)
    result, _ = running(client, tmp_path)
    os.kill(shop.process.pid, number)
    shop.process.wait(timeout=TIMEOUT)
    with pytest.raises(WorkerLostError):
        result.get(timeout=TIMEOUT)


def test_a_soft_shutdown_gives_some_time(client: Any, start_shop: StartShop, tmp_path: Path):
    shop = start_shop("-P", "threads", "-c", "1", SHOP_SOFT_SHUTDOWN="60")
    result, go_on = running(client, tmp_path)
    os.kill(shop.process.pid, SIGQUIT)
    shop.process.wait_for("what runs may take 60 s more")
    go_on.touch()
    assert shop.process.wait(timeout=TIMEOUT) == 0
    assert result.get(timeout=TIMEOUT) == "done"


@pytest.mark.parametrize(("number", "code"), [(SIGINT, 1), (SIGTERM, 0)])
def test_the_exit_code_tells_whether_it_was_interrupted(start_shop: StartShop, number: int, code: int):
    shop = start_shop("-P", "threads", "-c", "1")
    os.kill(shop.process.pid, number)
    assert shop.process.wait(timeout=TIMEOUT) == code
    (told,) = shop.noted("worker_shutting_down")
    assert told[5] == code


def test_the_exit_code_is_that_of_the_first_signal(client: Any, start_shop: StartShop, tmp_path: Path):
    shop = start_shop("-P", "threads", "-c", "1")
    _, go_on = running(client, tmp_path)
    os.kill(shop.process.pid, SIGINT)
    shop.process.wait_for("as long as it needs")
    os.kill(shop.process.pid, SIGTERM)
    go_on.touch()
    assert shop.process.wait(timeout=TIMEOUT) == 1


def test_the_second_signal_ends_it(client: Any, start_shop: StartShop, tmp_path: Path):
    shop = start_shop("-P", "processes", "-c", "1")
    result, _ = running(client, tmp_path)
    os.kill(shop.process.pid, SIGINT)
    shop.process.wait_for("stopping")
    while shop.process.running:  # two signals within 0.3 s are one
        os.kill(shop.process.pid, SIGINT)
        try:
            shop.process.wait(timeout=1)
        except Exception:
            continue
    with pytest.raises(WorkerLostError):
        result.get(timeout=TIMEOUT)
