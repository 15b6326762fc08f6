"""A Django project with Celery, unmodified, on celeriac's workers: its settings, tasks, database connections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.celery_app.conftest import START
from tests.servers import LoggedProcess, RedisServer

PROJECT = Path(__file__).parent / "django_project"

CLIENT = """
import json, sys, time
import proj
import django
django.setup()
from celery import chord
from django.db import connection
from django_celery_results.models import TaskResult
from shop.models import Order
from shop.tasks import break_connection, buy, look, pay, total

order = Order.objects.create(name="tea")
found = {"paid": pay.delay(order.pk).get(timeout=60)}
order.refresh_from_db()
found["stored"] = order.paid
found["looks"] = [look.delay().get(timeout=60) for _ in range(2)]
break_connection.delay().get(timeout=60)
found["after_break"] = look.delay().get(timeout=60)
found["not_bought"] = buy.delay("nothing", False).get(timeout=60)
bought = buy.delay("cake", True).get(timeout=60)
deadline = time.monotonic() + 60
while not Order.objects.filter(pk=bought, paid=True).exists() and time.monotonic() < deadline:
    time.sleep(0.05)
found["bought"] = list(Order.objects.filter(pk=bought).values_list("paid", flat=True))
found["total"] = chord([pay.s(order.pk) for _ in range(3)])(total.s()).get(timeout=60)
try:
    pay.delay(-1).get(timeout=60)
except Order.DoesNotExist:
    found["missing"] = "Order.DoesNotExist"
row = TaskResult.objects.filter(task_name="shop.tasks.pay", status="SUCCESS").first()
found["row"] = [json.loads(row.result), row.worker] if row else None
hidden = pay.apply_async((order.pk,), argsrepr="(hidden)", kwargsrepr="{hidden}")
hidden.get(timeout=60)
row = TaskResult.objects.get(task_id=hidden.id)
found["shown"] = [json.loads(row.task_args), json.loads(row.task_kwargs)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def variables(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        **os.environ,
        "SHOP_BROKER": redis_server.url(),
        "SHOP_QUEUE": f"django-{os.getpid()}",
        "SHOP_DB": str(tmp_path_factory.mktemp("django") / "db.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "proj.settings",
    }


def python(code: str, variables: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, check=False, cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def database(variables: dict[str, str]) -> None:
    code = "import django; django.setup(); from django.core.management import call_command as call; "
    python(code + "call('migrate', run_syncdb=True, verbosity=0)", variables)


@pytest.fixture(scope="module", params=["threads", "processes", "solo"])
def worker(
    request: pytest.FixtureRequest, database: None, variables: dict[str, str]
) -> Iterator[tuple[str, LoggedProcess]]:
    command = [
        sys.executable,
        "-m",
        "celeriac",
        "-A",
        "proj",
        "worker",
        "-P",
        request.param,
        "-n",
        "shop@host",
    ]
    process = LoggedProcess(command, env=variables, cwd=PROJECT)
    try:
        process.wait_for(" ready", timeout=START)
        yield request.param, process
    finally:
        process.stop()


def test_a_project_runs_as_it_is(worker: tuple[str, LoggedProcess], variables: dict[str, str]) -> None:
    pool, process = worker
    found: dict[str, Any] = json.loads(python(CLIENT, variables))
    assert (found["paid"], found["stored"]) == ("tea", True)
    assert (found["not_bought"], found["bought"], found["total"]) == (0, [True], 3)
    assert found["missing"] == "Order.DoesNotExist"
    assert found["row"] == ["tea", "shop@host"]
    assert found["shown"] == ["(hidden)", "{hidden}"]
    # In the same process and thread, with its connection closed after the task before.
    (first, _, _), (second, in_main_thread, was_closed) = found["looks"]
    assert (first == second, in_main_thread, was_closed) == (True, pool != "threads", True)
    assert (second == process.pid) == (pool != "processes")
    assert found["after_break"][2]
    # Django's receivers of the worker's signals use the database too.
    assert "SynchronousOnlyOperation" not in process.output


LEAVING = """
import json
import proj
import django
django.setup()
from shop.models import Order
from shop.tasks import leave_open, pay

found = {}
for how in ("autocommit", "atomic", "fails"):
    try:
        found[how] = leave_open.delay(how).get(timeout=60)
    except ValueError as error:
        found[how] = error.args[0]
    found[how, "kept"] = Order.objects.filter(name=how).exists()
order = Order.objects.create(name="next")
found["next"] = pay.delay(order.pk).get(timeout=60)
print(json.dumps(list(found.values())))
"""


def test_a_transaction_that_a_task_leaves_open_is_rolled_back(
    worker: tuple[str, LoggedProcess], variables: dict[str, str]
) -> None:
    found = json.loads(python(LEAVING, variables))
    assert found == ["autocommit", False, "atomic", False, "fails", False, "next"]


HIDING = """
import json, time
import proj
import django
django.setup()
from datetime import datetime, timedelta, timezone
from celery import chain
from django_celery_results.models import TaskResult
from shop.tasks import pay

hidden = {"argsrepr": "(hidden)", "kwargsrepr": "{hidden}"}
step = pay.si("SECRET").set(**hidden)
unknown = pay.s("SECRET").clone()
unknown["task"] = "shop.tasks.unknown"
revoked = pay.s("SECRET")
revoked_id = "revoked-%s" % time.time()
pay.app.control.revoke(revoked_id)
sent = {
    "expired": pay.apply_async(("SECRET",), expires=datetime.now(timezone.utc) - timedelta(1), **hidden),
    "revoked": revoked.apply_async(task_id=revoked_id, **hidden),
    "unknown": unknown.apply_async(**hidden),
    "refused": pay.apply_async(("SECRET",), time_limit=1, link=[{"task": 1}], **hidden),
    "later step": chain(pay.si(-1), step).apply_async(),
}
found = {}
for name, result in sent.items():
    deadline = time.monotonic() + 60
    ended = TaskResult.objects.filter(task_id=result.id, status__in=("FAILURE", "REVOKED"))
    while not (rows := ended.exclude(task_args=None)):  # a revocation is stored without them at first
        assert time.monotonic() < deadline, (name, list(TaskResult.objects.values("task_id", "status")))
        time.sleep(0.05)
    found[name] = [json.loads(rows[0].task_args), json.loads(rows[0].task_kwargs)]
print(json.dumps(found))
"""


def test_hidden_arguments_of_tasks_that_never_ran(
    worker: tuple[str, LoggedProcess], variables: dict[str, str]
) -> None:
    found: dict[str, Any] = json.loads(python(HIDING, variables))
    assert {name: ["(hidden)", "{hidden}"] for name in found} == found
    assert len(found) == 5


def test_an_app_of_celeriacs_in_a_django_project(database: None, variables: dict[str, str]) -> None:
    printed = python("import json; from shop.own import main; print(json.dumps(main()))", variables)
    for looks in json.loads(printed):
        (first, second, third) = looks
        assert first[:2] == second[:2] == third[:2]  # the same thread, the same process
        assert [was_closed for _, _, was_closed in looks] == [True, True, True]


def test_djangos_test_case_with_tasks_in_its_transaction(variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "django", "test", "shop"]
    ended = subprocess.run(
        command, check=False, cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=100
    )
    assert (ended.returncode, "Ran 3 tests" in ended.stderr) == (0, True), ended.stderr
