"""Whether a worker lives and is ready: in this process, and by the command line."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from celeriac import Celeriac
from celeriac.probes.health import Health, HealthListener, Pulse
from celeriac_probe import fetch, main
from tests.cli.project import TASKS, Project
from tests.servers import LoggedProcess, RedisServer

WAIT = 60.0

BLOCK = """

@app.task(name="shop.block")
async def block(seconds: float) -> None:
    time.sleep(seconds)
"""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


def wait_for(socket: str, target: str, status: int) -> str:
    end = time.monotonic() + WAIT
    while True:
        found = ask(socket, target)
        if found[0] == status:
            return found[1]
        assert time.monotonic() < end, found
        time.sleep(0.05)


def ask(socket: str, target: str) -> tuple[int, str]:
    try:
        status, body = fetch(socket, target, WAIT)
    except (FileNotFoundError, ConnectionError) as error:
        return 0, str(error)
    return status, body.decode()


async def test_an_outage_makes_a_worker_unready_and_alive(own_redis: RedisServer, queue: str):
    app = Celeriac("shop", own_redis.url(), own_redis.url())
    health = Health(Pulse(), ready_within=1.5)

    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        async for _ in health.lifespan(lambda: app.connections().broker):
            yield

    app.listen(HealthListener(health))
    assert not health.started().good
    assert health.live().text == "starting"
    async with app, app.worker(queues=[queue]) as worker:
        health.queues = lambda: worker.queues
        health.is_dead = lambda: worker.has_ended
        await until(lambda: health.ready().good)
        assert health.started().good
        own_redis.stop()
        await until(lambda: not health.ready().good)
        assert "the broker did not answer for" in health.ready().text
        assert "not available" in health.ready().text
        assert health.live().good
        assert health.started().good
        own_redis.start()
        await until(lambda: health.ready().good)
        await worker.drop_queue(queue)
        assert health.ready().text == "the worker takes from no queue"
    assert health.ready().text == "stopping"
    assert health.live().text == "stopped"


def test_an_outage_of_many_leases_restarts_no_worker(project: Project, own_redis: RedisServer):
    lease, socket, url = 0.5, str(project.directory / "probe"), own_redis.url()
    servers = ["-b", url, "--backend", url]
    options = ["--lease", str(lease), "--live-after", "5", "--probe-socket", socket]
    worker = project.start("worker", "-A", project.module, *servers, *options)
    try:
        wait_for(socket, "/readyz", 200)
        for begin, end in ((own_redis.kill, own_redis.start), (own_redis.pause, own_redis.resume)):
            running = project.start("call", "-A", project.module, *servers, "shop.sleep", "1")
            assert running.wait(timeout=WAIT) == 0
            begin()
            until = time.monotonic() + 6 * lease
            while time.monotonic() < until:
                assert ask(socket, "/livez")[0] == 200
                time.sleep(0.02)
            end()
            called = project.start("call", "-A", project.module, *servers, "shop.add", "1", "2", "--wait")
            assert called.wait(timeout=WAIT) == 0, called.output
            wait_for(socket, "/readyz", 200)
        assert worker.stop() == 0
    finally:
        if worker.running:
            worker.kill()


async def test_a_worker_whose_queues_are_all_paused_is_not_ready(own_redis: RedisServer, queue: str):
    app = Celeriac("shop", own_redis.url(), own_redis.url())
    health, other = Health(Pulse()), f"{queue}.other"

    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        async for _ in health.lifespan(lambda: app.connections().broker):
            yield

    app.listen(HealthListener(health))
    async with app, app.worker(queues=[queue, other]) as worker:
        health.queues = lambda: worker.queues
        await until(lambda: health.ready().good)
        await app.control.pause(queue)
        assert health.ready().good
        await app.control.pause(other)
        assert health.ready().text == "the worker takes from no queue"
        assert health.live().good
        await app.control.resume(other)
        await until(lambda: health.ready().good)


async def test_a_loop_that_is_held_up_is_late_and_then_stuck():
    pulse = Pulse()
    health = Health(pulse, live_after=0.2)
    beating = asyncio.create_task(pulse.run())
    await until(lambda: pulse.last is not None)
    assert health.live().good
    time.sleep(1.0)  # noqa: ASYNC251 - that is what it is about
    assert "the event loop is stuck for" in health.live().text
    assert pulse.lag >= 0.4
    await until(lambda: health.live().good)
    beating.cancel()


def test_a_worker_answers_from_its_import_to_its_end(project: Project):
    project.write("import time\ntime.sleep(1)\n" + TASKS + BLOCK)
    socket, beat = str(project.directory / "probe"), str(project.directory / "beat")
    worker = project.start(
        "worker",
        "-A",
        project.module,
        "--probe-socket",
        socket,
        "--heartbeat-file",
        beat,
        "--live-after",
        "1",
    )
    wait_for(socket, "/livez", 200)
    assert ask(socket, "/startupz") == (503, "the worker does not hold its queues yet\n")
    assert "the broker answered" in wait_for(socket, "/readyz", 200)
    assert ask(socket, "/startupz") == (200, "started\n")
    assert main(["live", "--file", beat]) == 0
    assert project.run("probe", "ready", "--socket", socket).exit_code == 0
    run(project, "shop.block", "2")
    assert "stuck" in wait_for(socket, "/livez", 503)
    assert ask(socket, "/readyz")[0] == 200
    assert main(["live", "--file", beat, "--max-age", "0.5"]) == 1
    wait_for(socket, "/livez", 200)
    run(project, "shop.sleep", "1")
    worker.wait_for("sleeps")
    os.kill(worker.pid, 15)
    assert wait_for(socket, "/readyz", 503) == "stopping\n"
    assert ask(socket, "/livez")[0] == 200
    assert worker.wait() == 0
    assert not Path(socket).exists()
    assert not Path(beat).exists()


def test_several_processes_answer_as_one(project: Project):
    socket, beat = str(project.directory / "probe"), str(project.directory / "beat")
    options = ["--processes", "2", "--probe-socket", socket, "--heartbeat-file", beat, "--live-after", "1"]
    worker = project.start("worker", "-A", project.module, "-c", "1", *options)
    assert wait_for(socket, "/startupz", 200)
    assert wait_for(socket, "/readyz", 200) == "2 processes\n"
    os.kill(children(worker)[0], 9)
    assert "process 1: does not run" in wait_for(socket, "/readyz", 503)
    assert ask(socket, "/livez")[0] == 200
    wait_for(socket, "/readyz", 200)
    assert main(["live", "--file", beat]) == 0
    assert worker.stop() == 0
    assert not Path(beat).exists()


def test_a_probe_without_a_place_is_refused(project: Project):
    for options in (["--probe-port", "http"], ["--probe-port", "70000"], ["--live-after", "0"]):
        assert project.run("worker", "-A", project.module, *options).exit_code == 2
    missing = project.run("worker", "-A", project.module, "--heartbeat-file", "/nowhere/beat")
    assert missing.exit_code == 2
    assert "heartbeat file /nowhere/beat cannot be written" in missing.output


def run(project: Project, task: str, *arguments: str) -> None:
    assert project.run("call", "-b", project.url, task, *arguments).exit_code == 0


def children(worker: LoggedProcess) -> list[int]:
    lines = [line for line in worker.lines if " is process " in line]
    return [int(line.rsplit(" ", 1)[1]) for line in lines]
