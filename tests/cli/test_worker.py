"""celeriac worker, in processes of its own."""

import json
import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.cli.project import TASKS, Project
from tests.servers import RedisServer

STUBBORN = """

@app.task(name="shop.stay")
async def stay(ctx: Context) -> None:
    ctx.logger.info("stays")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ctx.logger.info("stays all the same")
"""

HOG = """
import ctypes
import os


@app.task(name="shop.hog")
def hog(ctx: Context) -> None:
    ctx.logger.info("hogs in process %d", os.getpid())
    ctypes.PyDLL(None).sleep(60)  # keeps the interpreter lock
"""


def call(project: Project, *arguments: str) -> str:
    sent = project.run("call", "-b", project.url, *arguments)
    assert sent.exit_code == 0, sent.output
    return sent.stdout.strip()


def state(project: Project, task_id: str) -> str:
    shown = project.run("result", "-b", project.url, "--backend", project.url, task_id, "--json")
    return str(json.loads(shown.stdout)["status"])


def test_banner_then_ready(project: Project):
    project.env = {"CELERIAC_BROKER": f"sqlite:///{project.directory}/named.db"}
    with project.worker("-Q", "fast, slow", "-c", "7", "-n", "w1@%h", "--loop", "asyncio") as worker:
        head, *rows = worker.lines
        assert head.startswith("celeriac 0.")
        assert "w1@" in head
        text = "\n".join(rows)
        assert f"broker   sqlite:///{project.directory}/named.db" in text
        assert "queues   fast, slow" in text
        assert "7 tasks, plain functions in threads" in text
        assert "shop.add, shop.boom, shop.climb, shop.greet, shop.sleep" in text
        assert rows[-1].endswith(" ready")
        assert worker.stop() == 0


@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_a_refused_login_at_the_start_ends_it(
    project: Project, secured_redis: RedisServer, options: list[str]
):
    url = f"redis://:wrong@127.0.0.1:{secured_redis.port}/0"
    process = project.start("worker", "-A", project.module, "-b", url, *options)
    assert process.wait(timeout=60) == 3
    assert "refused the login" in process.lines[-1]
    assert "Traceback" not in process.output


def test_password_is_masked(project: Project):
    process = project.start("worker", "-A", project.module, "-b", "redis://me:secret@127.0.0.1:1/0")
    process.wait_for("redis://me:***@127.0.0.1:1/0")
    process.wait_for("cannot subscribe")
    assert process.stop() == 0
    assert "secret" not in process.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_lets_the_running_task_end(project: Project, number: signal.Signals):
    with project.worker() as worker:
        task_id = call(project, "shop.sleep", "0.6")
        worker.wait_for("sleeps")
        worker.send_signal(number)
        worker.wait_for("stopping: 1 task")
        assert worker.wait() == 0
    assert state(project, task_id) == "SUCCESS"


@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_two_signals_at_once_are_one_and_a_later_one_gives_it_back(project: Project, options: list[str]):
    with project.worker(*options) as worker:
        task_id = call(project, "shop.sleep", "60")
        worker.wait_for("sleeps")
        worker.send_signal(signal.SIGINT)
        time.sleep(0.005)
        worker.send_signal(signal.SIGINT)
        worker.wait_for("stopping")
        time.sleep(0.8)  # that nothing happens
        assert "second signal" not in worker.output
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
    waiting = json.loads(project.run("queues", "peek", "celery", "--json", "-b", project.url).output)
    assert [task["id"] for task in waiting] == [task_id]


def test_grace_is_an_end(project: Project):
    with project.worker("--grace", "0.2") as worker:
        call(project, "shop.sleep", "60")
        worker.wait_for("sleeps")
        begun = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - begun < 25
    assert json.loads(project.run("queues", "--json", "-b", project.url).output) == {"celery": 1}


def test_a_coroutine_that_refuses_to_end_holds_up_nobody(project: Project):
    project.write(TASKS + STUBBORN)
    with project.worker("--grace", "0.2") as worker:
        task_id = call(project, "shop.stay")
        worker.wait_for("stays")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
        assert f"shop.stay[{task_id}] does not let itself be cancelled" in worker.output
    waiting = json.loads(project.run("queues", "peek", "celery", "--json", "-b", project.url).output)
    assert [task["id"] for task in waiting] == [task_id]


def test_child_processes_end_with_a_worker_that_is_killed(project: Project):
    project.write(TASKS + HOG)
    with project.worker("-P", "processes", "-c", "1") as worker:
        call(project, "shop.hog")
        worker.wait_for("hogs in process")
        children = psutil.Process(worker.pid).children()
        worker.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_json_lines(project: Project):
    with project.worker("--log-format", "json") as worker:
        done = call(project, "shop.add", "1", "2")
        worker.wait_for(f"{done}] succeeded")
        failed = call(project, "shop.boom")
        worker.wait_for(f"{failed}] failed")
        assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.lines]
    assert all({"time", "level", "logger", "worker", "message"} <= line.keys() for line in lines)
    [begun, told] = [line for line in lines if line.get("task_id") == done]
    assert begun["message"].endswith("] started")
    assert (told["level"], told["task_name"]) == ("INFO", "shop.add")
    [_, error] = [line for line in lines if line.get("task_id") == failed]
    assert error["level"] == "ERROR"
    assert error["exception"].endswith("ValueError: no such thing")


def test_child_processes_log_and_send_as_their_worker_does(project: Project):
    project.write(
        "from celeriac import Celeriac, Context\n"
        "app = Celeriac('shop')\n"
        "@app.task(name='shop.passed')\n"
        "async def passed() -> None: ...\n"
        "@app.task(name='shop.pass_on')\n"
        "def pass_on(ctx: Context) -> str:\n"
        "    ctx.logger.info('passes it on')\n"
        "    return passed.delay().id\n"
    )
    project.env = {}
    elsewhere = f"sqlite:///{project.directory}/elsewhere.db"
    options = ("-b", elsewhere, "-P", "processes", "-c", "1", "--log-format", "json")
    with project.worker(*options) as worker:
        sent = project.run("call", "-b", elsewhere, "shop.pass_on")
        assert sent.exit_code == 0, sent.output
        worker.wait_for("shop.passed[")
        assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.lines]
    [told] = [line for line in lines if line["message"] == "passes it on"]
    assert told["task_id"] == sent.stdout.strip()
    assert not project.file.exists()


def test_level_and_the_task_s_own_lines(project: Project):
    with project.worker("-l", "warning") as worker:
        call(project, "shop.sleep", "0")
        failed = call(project, "shop.boom")
        line = worker.wait_for(f"shop.boom[{failed}] failed")
        assert " ERROR " in line
        assert worker.stop() == 0
    assert "sleeps" not in worker.output
    assert "succeeded" not in worker.output
    assert "\x1b" not in worker.output


def test_task_lines_name_the_task(project: Project):
    with project.worker() as worker:
        task_id = call(project, "shop.sleep", "0")
        assert worker.wait_for("sleeps").endswith(f"shop.sleep[{task_id}] sleeps")


def test_logging_of_the_user_s_own_gives_no_double_lines(project: Project):
    text = (project.directory / f"{project.module}.py").read_text()
    project.write("import logging\nlogging.basicConfig(level='INFO', format='MINE %(message)s')\n" + text)
    with project.worker("--log-format", "text") as worker:
        task_id = call(project, "shop.add", "1", "2")
        worker.wait_for("succeeded")
        assert worker.stop() == 0
    about = [line for line in worker.lines if task_id in line and "succeeded" in line]
    assert [line[:10] for line in about] == ["MINE shop."]
    assert "--log-format text has no effect" in worker.output


def children(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children()}


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_processes_share_the_work_and_are_started_again(project: Project):
    with project.worker("--processes", "2", "-c", "1", "--grace", "0.1") as parent:
        running = [call(project, "shop.sleep", "60") for _ in range(2)]
        took = {
            parent.wait_for(f"{task_id}] sleeps").split(" shop.sleep")[0].split()[-1] for task_id in running
        }
        assert {name.partition("@")[0] for name in took} == {"celeriac-1", "celeriac-2"}
        before = children(parent.pid)
        os.kill(min(before), signal.SIGKILL)
        parent.wait_for("ended (killed by SIGKILL), starting it again in")
        wait_until(lambda: children(parent.pid) - before, "no child was started again")
        wait_until(lambda: sum(line.endswith(" ready") for line in parent.lines) == 3, "it was not ready")
        assert parent.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in before)


def test_children_end_with_their_parent(project: Project):
    with project.worker("--processes", "2") as parent:
        processes = [psutil.Process(pid) for pid in children(parent.pid)]
        parent.kill()
        _, alive = psutil.wait_procs(processes, timeout=15)
    assert len(processes) == 2
    assert alive == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--autoscale=3,10"], "the most tasks at once and the least"),
        (["-D"], "systemd"),
        (["-P", "gevent"], "use -P threads"),
        (["-P", "custom"], "use -P threads, processes or solo"),
        (["-n", "a@b@c"], "exactly one '@'"),
        (["-c", "0"], "is not in the range"),
    ],
)
def test_flags_of_celery_that_are_not_here(project: Project, flags: list[str], said: str):
    ended = project.run("worker", "-A", project.module, *flags)
    assert ended.exit_code == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_flags_of_celery_that_do_no_harm(project: Project):
    flags = ["--without-gossip", "--without-mingle"]
    values = ["-s", "beat.db", "--heartbeat-interval", "2", "-S", "state.db"]
    with project.worker(*flags, *values) as worker:
        assert worker.stop() == 0
    for flag in ("--without-gossip", "--without-mingle", "--heartbeat-interval 2", "--schedule beat.db"):
        [line] = [line for line in worker.lines if f" {flag} has no effect: " in line]
        assert " WARNING " in line
