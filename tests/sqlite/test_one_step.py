"""Endings on one file land in one transaction, where they are one file, and harm each other in nothing."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.contracts.server import Landing
from celeriac.errors import BrokerError
from celeriac.servers.sqlite import SqlBackend
from celeriac.testing.steps import publish_numbers, take_all
from celeriac.wire.content import Codecs
from celeriac.wire.result import SUCCESS, ResultRecord


async def test_an_ending_that_the_file_refuses_harms_no_other(open_broker, file: Path):
    broker, results = open_broker(), SqlBackend(f"sqlite:///{file}", Codecs())
    settlements = broker.settlements(results)
    await publish_numbers(broker, "q", range(3))
    with closing(sqlite3.connect(file)) as connection:
        await results.ping()
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON celery_taskmeta WHEN NEW.task_id = '1'"
            " BEGIN SELECT RAISE(ROLLBACK, 'not this one'); END"
        )
    async with broker.subscribe(["q"]) as subscription:
        deliveries = await take_all(subscription, 3)
        landings = [
            settlements.land(Landing(delivery.receipt, [results.encode(record(str(number)))]))
            for number, delivery in enumerate(deliveries)
        ]
        answers = await asyncio.gather(*landings, return_exceptions=True)
        assert [isinstance(answer, BrokerError) for answer in answers] == [False, True, False]
        assert "not this one" in str(answers[1])
        assert [found is not None for found in await results.load(["0", "1", "2"])] == [True, False, True]
        await deliveries[1].receipt.requeue()
    assert await broker.depth("q") == 1
    await results.close()


def record(task_id: str) -> ResultRecord:
    return ResultRecord(task_id=task_id, status=SUCCESS, result=1)


@pytest.mark.parametrize(
    ("broker", "backend", "in_one_step"),
    [
        ("sqlite:///{0}/a.db", "sqlite:///{0}/a.db", True),
        ("sqlite:///{0}/a.db", "db+sqlite:///{0}/a.db", True),
        ("sqlite:///{0}/a.db", "sqlite:///{0}/link/a.db", True),
        ("sqlite:///{0}/a.db", "sqlite:///{0}/b.db", False),
        ("sqlite:///{0}/a.db", "memory://", False),
    ],
)
async def test_one_file_is_one_server_however_it_is_named(
    tmp_path: Path, broker: str, backend: str, in_one_step: bool
):
    (tmp_path / "link").symlink_to(tmp_path)
    async with Celeriac("shop", broker.format(tmp_path), backend.format(tmp_path)) as app:
        assert (app.connections().settlements is not None) == in_one_step


async def test_result_and_acknowledgement_are_one_transaction(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/shop.db"
    async with Celeriac("shop", url, url) as app:
        app.register("double", double)
        async with app.worker(concurrency=1):
            await (await app.send_task("double", [1])).wait(60)
            said: list[str] = []
            link = app.connections().broker._file.link
            await link.read(lambda connection: connection.set_trace_callback(said.append))
            assert await (await app.send_task("double", [2])).wait(60) == 4
    transactions = "\n".join(said).split("BEGIN IMMEDIATE")
    ends = [text for text in transactions if "INTO celery_taskmeta" in text]
    assert len(ends) == 1
    assert "DELETE FROM celeriac_message" in ends[0]


async def double(x: int) -> int:
    return 2 * x
