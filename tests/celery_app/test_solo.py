"""With the pool solo a Celery app's tasks run in the main thread, and need not know that a loop runs there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.celery_app.conftest import TIMEOUT, StartShop

pytestmark = pytest.mark.timeout(180)


def test_tasks_that_run_loops_of_their_own_and_coroutines(client: Any, start_shop: StartShop) -> None:
    start_shop("-P", "solo")
    assert client.runs_a_loop.delay(2).get(timeout=TIMEOUT) == [4, True]
    result = client.awaited.delay(0.01)
    assert result.get(timeout=TIMEOUT) == result.id
    assert client.hooked.delay("ok").get(timeout=TIMEOUT) == 7
