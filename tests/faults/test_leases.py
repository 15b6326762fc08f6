"""What a worker holds is its own while it lives, whatever it does, and another's soon after it died."""

import asyncio
import json
import signal
import sys
import time
import uuid

import psutil

import redis
from celeriac.wire.names import binding_member
from tests.faults.conftest import ROOT, ends_within, send
from tests.servers import LoggedProcess


async def test_a_task_that_keeps_the_interpreter_lock_for_three_leases_runs_once(
    broker_url, queue, record, start_worker
):
    for _ in range(2):
        start_worker(broker_url, "--lease", "1")
    await send(broker_url, queue, "hog", str(record.path), 3.2)
    await record.until("ended")
    assert len(record.times("began")) == 1


async def test_a_stopped_worker_keeps_its_task(broker_url, queue, record, start_worker):
    worker = start_worker(broker_url, "--lease", "1")
    await send(broker_url, queue, "wait", str(record.path), 0.5)
    await record.until("began")
    worker.send_signal(signal.SIGSTOP)
    start_worker(broker_url, "--lease", "1")
    await asyncio.sleep(2.0)
    assert len(record.times("began")) == 1
    worker.send_signal(signal.SIGCONT)
    await record.until("ended")
    assert len(record.times("began")) == 1


async def test_a_killed_workers_task_runs_elsewhere_within_the_lease_and_no_process_of_it_is_left(
    broker_url, queue, record, start_worker
):
    lease = 2.0
    worker = start_worker(broker_url, "--lease", str(lease))
    await send(broker_url, queue, "wait", str(record.path), 3600)
    await record.until("began")
    start_worker(broker_url, "--lease", str(lease))
    await asyncio.sleep(lease)  # so that it was renewed
    assert len(record.times("began")) == 1
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) == (1 if broker_url.startswith("redis") else 0), "one renews on Redis"
    killed = time.time()
    worker.kill()
    assert all(ends_within(30.0, child) for child in children)
    _, again = await record.until("began", 2)
    assert again - killed < lease


async def test_the_leases_of_a_killed_worker_end_at_once(own_redis, queue, record, start_worker):
    worker = start_worker(own_redis.url(), "--lease", "300")
    await send(own_redis.url(), queue, "wait", str(record.path), 3600)
    await record.until("began")
    with own_redis.client() as client:
        ((_, ends),) = client.zrange("celeriac.leases", 0, -1, withscores=True)
        assert ends > time.time() + 60
        worker.kill()
        async with asyncio.timeout(60):
            while client.zrange("celeriac.leases", 0, -1, withscores=True)[0][1]:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.05)


async def test_an_outage_longer_than_the_lease_takes_nothing_from_who_lives(
    own_redis, queue, record, start_worker
):
    for _ in range(2):
        start_worker(own_redis.url(), "--lease", "4")
    await send(own_redis.url(), queue, "wait", str(record.path), 7.0)
    await record.until("began")
    own_redis.kill()
    await asyncio.sleep(4.2)
    own_redis.start()
    await record.until("ended")
    assert len(record.times("began")) == 1


async def test_a_celery_worker_with_a_short_visibility_timeout_leaves_long_tasks_alone(
    redis_server, queue, record, start_worker, unique
):
    """kombu's sweep knows no queues: a Celery worker restores what any worker of its Redis holds for too long."""
    url, other = redis_server.url(3), unique("other")
    celery = LoggedProcess([sys.executable, "-m", "tests.faults.impatient_celery", url, other], cwd=ROOT)
    try:
        start_worker(url, "--lease", "8")  # renewed less often than that Celery worker asks for
        celery.wait_for(" ready.")
        await send(url, queue, "wait", str(record.path), 3.5)
        await record.until("began")
        with redis_server.client(3) as client:
            await sweep(client, unique("bait"), at_least=2.8)
        assert not record.times("ended"), "the sweeps came too late to tell"
        await record.until("ended")
        assert len(record.times("began")) == 1
    finally:
        celery.kill()


async def sweep(client: redis.Redis, bait: str, at_least: float) -> None:
    """See Celery restore, at the beginning and at the end of this time, what it takes for lost."""
    client.sadd(f"_kombu.binding.{bait}", binding_member(bait, "", bait))
    for pause in (at_least, 0):
        lost = str(uuid.uuid4())
        message = {"body": "", "headers": {}, "properties": {"delivery_info": {}}}
        client.hset("unacked", lost, json.dumps([message, bait, bait]))
        client.zadd("unacked_index", {lost: time.time() - 60})
        async with asyncio.timeout(60):
            while client.zscore("unacked_index", lost) is not None:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.02)
        await asyncio.sleep(pause)
    assert client.llen(bait) == 2
