"""Who is alive, told where one looks: doctor, queues, and a call that waits."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from celeriac import Celeriac
from tests.cli.project import TASKS, Project
from tests.cli.terminal import on_a_terminal


@contextmanager
def serving(url: str, queue: str = "celery", *, answers: bool = True) -> Iterator[None]:
    """A worker of one slot that is always busy."""
    app = Celeriac("alive", url, "disabled://", default_queue=queue, remote_control=answers)

    @app.task(name="alive.stay")
    async def stay() -> None:
        await asyncio.sleep(600)

    worker = app.worker(name="one@here", concurrency=1, grace=0)
    worker.start()
    try:
        app.delay("alive.stay")
        yield
    finally:
        worker.stop()


def lines_of(project: Project, url: str) -> list[list[str]]:
    checks = json.loads(project.run("doctor", "-b", url, "--json").stdout)
    return [
        [check["level"], check["text"], check["fix"]]
        for check in checks
        if check["about"] in ("workers", "queues")
    ][1:]


def test_who_takes_is_asked_of_the_workers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    url = project.url
    in_vain = [
        "warn",
        "2 tasks wait in slow, and no worker takes from it",
        "celeriac -A MODULE worker -Q slow, or celeriac control add_consumer slow",
    ]
    for number in range(2):
        project.run("call", "-b", url, "shop.add", str(number), "1", "-Q", "slow")
    nobody, vain = lines_of(project, url)
    assert nobody[:2] == ["warn", "none answers"]
    assert "start one" in nobody[2]
    assert vain == in_vain
    sent = ["call", "-b", url, "--backend", url, "shop.add", "1", "2"]
    with serving(url):
        assert lines_of(project, url) == [["ok", "1: one@here", ""], in_vain]
        assert project.run("queues", "pause", "slow", "-b", url).exit_code == 0
        resume = "celeriac queues resume slow"
        assert lines_of(project, url)[1:] == [["warn", "2 tasks wait in slow, which is paused", resume]]
        assert project.run("queues", "resume", "slow", "-b", url).exit_code == 0
        listed = project.run("queues", "-b", url).stdout.splitlines()
        assert [line.split() for line in listed] == [
            ["queue", "waiting", "workers"],
            ["celery", "0", "1"],
            ["slow", "2", "0"],
        ]
        waiting = [project.start(*sent, "--wait", "-Q", "slow"), project.start(*sent, "--wait")]
        waiting[0].wait_for("] waits: no worker takes from queue slow")
        waiting[1].wait_for("] waits in queue celery, from which 1 worker takes")
        for process in waiting:
            process.kill()
        code, shown = on_a_terminal(monkeypatch, *sent, "-Q", "slow", "--timeout", "6", columns=160)
        assert code == 4
        assert "last seen PENDING: waits: no worker takes from queue slow (celeriac result" in shown
        assert shown.count("waits: no worker takes from queue slow") >= 2  # beside the bar, and at the end


def test_rabbitmq_counts_who_takes(project: Project, rabbit_url: str, queue: str) -> None:
    with serving(rabbit_url, queue, answers=False):
        project.run("call", "-b", rabbit_url, "shop.add", "1", "1", "-Q", f"{queue}-slow")
        listed = [line.split() for line in project.run("queues", "-b", rabbit_url).stdout.splitlines()]
        assert [queue, "0", "1"] in listed
        assert [f"{queue}-slow", "1", "0"] in listed
        backend = ["--backend", project.url, "--timeout", "6"]
        waited = project.run("call", "-b", rabbit_url, *backend, "shop.add", "1", "1", "-Q", f"{queue}-slow")
        assert f"waits: no worker takes from queue {queue}-slow\n" in waited.stderr
        texts = [check[1] for check in lines_of(project, rabbit_url)]
        assert f"2 tasks wait in {queue}-slow, and no worker takes from it" in texts
    project.run("queues", "purge", f"{queue}-slow", "-y", "-b", rabbit_url)


def test_a_worker_tells_who_is_beside_it(project: Project) -> None:
    project.write(TASKS.replace('Celeriac("shop")', 'Celeriac("shop", remote_control=True)'))
    with serving(project.url), project.worker("-n", "two@here", "-c", "1") as beside:
        beside.wait_for("beside   one@here")
        with project.worker("-n", "two@here", "--log-format", "json") as doubled:
            doubled.wait_for("beside it on this broker: one@here")
            doubled.wait_for("another worker of this broker is named two@here too")
