"""The child processes of a Celery app have numbers, and logs by them, as Celery's have."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from tests.celery_app.conftest import TIMEOUT, StartShop

pytestmark = pytest.mark.timeout(180)


def ask_each(client: Any, directory: Path) -> dict[int, int]:
    """The process ids of both children, by their numbers: each waits for the other to have begun."""
    mark = directory / f"mark-{os.urandom(4).hex()}"
    results = [client.numbered.delay(str(mark), 2) for _ in range(2)]
    return dict(result.get(timeout=TIMEOUT) for result in results)


def test_a_child_has_the_lowest_number_that_is_free(
    client: Any, start_shop: StartShop, tmp_path: Path
) -> None:
    log = tmp_path / "%n%I-%h.log"
    shop = start_shop("-P", "processes", "-c", "2", "-n", "one@here.example", "-f", str(log))
    before = ask_each(client, tmp_path)
    assert sorted(before) == [0, 1]
    with pytest.raises(WorkerLostError):
        client.die.delay().get(timeout=TIMEOUT)
    after = ask_each(client, tmp_path)
    assert sorted(after) == [0, 1]
    assert len(after.items() & before.items()) == 1  # one of them is new
    assert shop.process.stop() == 0
    lines = {file.name: file.read_text() for file in tmp_path.glob("*.log")}
    assert sorted(lines) == ["one-1-here.example.log", "one-2-here.example.log", "one-here.example.log"]
    for number in (0, 1):
        written = lines[f"one-{number + 1}-here.example.log"]
        assert re.findall(r"printed by (\d)", written) == [str(number)] * 2
    assert "received" in lines["one-here.example.log"]
    assert "printed" not in lines["one-here.example.log"]
