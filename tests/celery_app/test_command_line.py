"""The commands beside worker, of a Celery app: they look at what its settings name."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from celeriac.cli.main import celeriac
from tests.celery_app.conftest import StartShop

pytestmark = pytest.mark.timeout(180)


def test_commands_of_a_celery_app(client: Any, start_shop: StartShop) -> None:
    start_shop("-P", "threads", "-c", "2", "-n", "shop@commands")
    queue = client.app.conf.task_default_queue

    def said(*arguments: str, code: int = 0) -> str:
        ended = CliRunner().invoke(celeriac, ["-A", "tests.celery_app.shop", *arguments])
        assert ended.exit_code == code, ended.output
        return ended.stdout  # what it waits for is told beside it

    name = "tests.celery_app.shop"
    assert said("call", f"{name}.add", "2", "3", "--wait") == "5\n"
    failed = client.fail.delay()
    failed.get(timeout=60, propagate=False)
    assert "RuntimeError" in said("result", failed.id, code=1)
    assert queue in said("queues")
    client.app.send_task("nobody.knows.it")
    assert client.add.delay(1, 1).get(timeout=60) == 2
    assert "nobody.knows.it" in said("dead")
    assert f"{name}.fail" in said("failed", "list", "-n", "100000")  # other tests have failed here too
    assert "shop@commands: OK" in said("status")
    assert f"{name}.add" in said("inspect", "registered", "-d", "shop@commands")
    assert "answers in" in said("doctor")
