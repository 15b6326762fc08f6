"""Whatever is published to the exchange of what all workers should know, a worker goes on with what is sound."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing

import pytest

import amqp
from celeriac import Celeriac
from celeriac.client.revocations import Revocations
from celeriac.errors import TaskRevoked
from celeriac.servers.rabbitmq import AmqpBroker
from tests.hostile.check import runs
from tests.hostile.texts import TEXTS
from tests.servers import RabbitServer

ENTRIES: list[dict[str, object]] = [
    {"number": True},
    {"number": -1, "queue": "forged"},
    {"number": 2**70, "change": ["revoked", {"ids": ["x"]}, 1.0]},
    {"number": 1, "change": ["revoked", {"ids": "x"}, 1.0]},
    {"number": 9, "change": ["revoked", {"ids": ["gone"]}, 1e300]},
    {"number": 10, "change": ["revoked", {"others": [""]}, -1e300], "until": 1e300},
    {"number": 11, "change": ["another", {}, 1.0]},
    {"number": 12, "change": []},
    {"number": 2, "counted": ["a"], "step": -(10**18)},
    {"number": 3, "held": ["a"], "until": "soon"},
    {"number": 4, "held": ["a"], "until": 1e300},
    {"number": 5, "ended": [None]},
    {"number": 6, "change": ["revoked", {"ids": ["x"]}, 1.0], "until": -1e300},
    {"number": 7, "queue": 7},
    {"number": 8, "unknown": [[[]]]},
]


async def test_a_worker_outlives_forged_entries(
    rabbit_server: RabbitServer, unique: Callable[[str], str], queue: str, caplog: pytest.LogCaptureFixture
):
    prefix = unique("forged") + "."
    bodies = [*TEXTS.values(), *(json.dumps(entry).encode() for entry in ENTRIES)]

    def forge() -> None:
        with closing(rabbit_server.client()) as connection:
            channel = connection.channel()
            for body in bodies:
                channel.basic_publish_confirm(amqp.Message(body), f"{prefix}ledger")

    for _ in range(2):  # the second one finds them in the history, too
        broker = AmqpBroker(rabbit_server.url(), prefix=prefix)
        app = Celeriac("forged", broker=broker, backend="memory://")

        @app.task(name="ok", queue=queue)
        async def ok(number: int) -> int:
            return number

        async with app, app.worker(queues=[queue]):
            assert await runs(app)
            await asyncio.to_thread(forge)
            assert await runs(app)
            revocations = Revocations(broker.board, broker.schedule)
            await revocations.add(["gone"], keep=60)
            assert "gone" in (await revocations.load()).ids
            with pytest.raises(TaskRevoked):
                await (await app.send_task("ok", [1], queue=queue, task_id="gone")).wait(timeout=60)
        await broker.close()
    assert 1 <= caplog.text.count("is left out, as further ones may be") <= 2
