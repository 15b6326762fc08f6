"""A worker that is killed while it holds messages that could not start yet."""

import asyncio
from collections import Counter

from celeriac import Celeriac

MANY = 3000


async def test_a_kill_loses_nothing_and_repeats_no_task_of_who_lives(broker_url, queue, record, start_worker):
    killed = start_worker(broker_url, "--lease", "1", "-c", "1", "-l", "warning")
    survivor = start_worker(broker_url, "--lease", "1", "-c", "1", "-l", "warning")
    async with Celeriac("sender", broker_url, "disabled://") as app:
        sends = (app.send_task("note", [str(record.path), number], queue=queue) for number in range(MANY))
        await asyncio.gather(*sends)
    async with asyncio.timeout(60):
        while len(lines(record)) < 300:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)
        killed.kill()
        while len({what for what, _ in lines(record)}) < MANY:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    runs = Counter(what for what, pid in lines(record) if pid == survivor.pid)
    assert max(runs.values()) == 1


def lines(record) -> list[tuple[str, int]]:
    text = record.path.read_text() if record.path.exists() else ""
    return [(line.split()[0], int(line.split()[1])) for line in text.splitlines() if len(line.split()) == 3]
