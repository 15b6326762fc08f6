"""A whole application on RabbitMQ: gocelery's messages, ETAs on every way, results elsewhere."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import amqp
from celeriac import Celeriac, chord, group
from celeriac.errors import EncodeError
from celeriac.routing import SendOptions
from celeriac.servers.rabbitmq import AmqpBroker, QueueOptions
from celeriac.testing.steps import soon
from celeriac.wire.task import TaskMessage
from tests.servers import RabbitServer
from tests.servers.redis import HOST
from tests.wire.captures import FIXTURES


def capture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / name).read_text())["raw"]
    return found


@pytest.mark.parametrize(
    ("case", "called"),
    [("none", ()), ("args", (2, 3)), ("kwargs", {"x": 2, "y": 3})],
    ids=str,
)
async def test_gocelery_messages_run_with_its_exact_properties(
    rabbit_url: str, channel: amqp.Channel, queue: str, case: str, called: Any
) -> None:
    raw = capture(f"msg.{case}.gocelery-v1.amqp.json")
    sent_at = datetime.fromisoformat(raw["properties"]["timestamp"])
    properties = raw["properties"] | {"timestamp": int(sent_at.timestamp())}
    seen: list[Any] = []
    done = asyncio.Event()
    body = base64.b64decode(raw["body_base64"])

    async def note(*args: Any, **kwargs: Any) -> None:
        seen.append(kwargs or args)
        done.set()

    app = Celeriac("go", broker=rabbit_url, backend="rpc://", default_queue=queue)
    app.register(json.loads(body)["task"], note)
    async with app, app.worker() as worker:
        await worker.ready()
        channel.basic_publish(amqp.Message(body, **properties), exchange="", routing_key=queue)
        await soon(done.wait())
    assert seen == [called]


async def test_an_eta_sent_to_a_topic_exchange_is_kept_for_each_queue(rabbit_url: str, queue: str) -> None:
    topic, names = f"{queue}.topic", [f"{queue}.a", f"{queue}.b"]
    options = {
        name: QueueOptions(exchange=topic, exchange_type="topic", routing_keys=("feed.#",)) for name in names
    }
    broker = AmqpBroker(rabbit_url, queues=options)
    app = Celeriac("topic", broker=broker, backend="disabled://")
    ran: list[tuple[str, float]] = []
    both = asyncio.Event()

    async def note(ctx: Any) -> None:
        ran.append((ctx.queue, time.time()))
        if len(ran) == 2:
            both.set()

    task = app.register("topic.note", note, bind=True)
    async with app, app.worker(queues=names) as worker:
        await worker.ready()
        due = time.time() + 1.2
        await task.using(exchange=topic, routing_key="feed.new", countdown=1.2).send()
        await soon(both.wait())
        assert [await broker.depth(name) for name in names] == [0, 0]
    assert sorted(name for name, _ in ran) == names
    assert all(due - 0.05 <= moment < due + 2 for _, moment in ran)
    await broker.close()


async def test_chords_are_counted_where_the_results_are(rabbit_url: str, queue: str, tmp_path: Path) -> None:
    app = Celeriac(
        "mixed", broker=rabbit_url, backend=f"sqlite:///{tmp_path / 'results.db'}", default_queue=queue
    )

    async def add(x: int, y: int) -> int:
        return x + y

    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    add_task, total_task = app.register("mixed.add", add), app.register("mixed.total", total)
    async with app, app.worker():
        result = await chord([add_task.s(n, n) for n in range(5)], total_task.s()).send()
        assert await result.wait(timeout=60) == 20
        results = await group(add_task.s(n, 1) for n in range(3)).send()
        assert await results.wait(timeout=60) == [1, 2, 3]


async def test_a_result_sent_to_a_queue_of_tasks_is_set_aside_and_never_run(
    rabbit_url: str, queue: str, channel: amqp.Channel
) -> None:
    ran: list[str] = []
    app = Celeriac("r", broker=rabbit_url, backend="rpc://", default_queue=queue, result_extended=True)

    async def echo(x: int) -> int:
        return x

    async def refund(*args: Any, **kwargs: Any) -> None:
        ran.append("refund")

    app.register("echo", echo)
    app.register("refund", refund)
    async with app:
        message = TaskMessage(
            id="echo-id",
            task="echo",
            args=[1],
            reply_to=queue,
            stamped_headers=["task", "id"],
            stamps={"task": "refund", "id": "x"},
        )
        await app.connections().publisher.publish(message, SendOptions(queue=queue))
        async with app.worker() as worker:
            await worker.ready()
            broker = app.connections().broker
            while not (letters := [one for one in await broker.dead.list(10_000) if one.queue == queue]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert len(letters) == 1
    assert "a result of a task" in letters[0].reason
    assert ran == []


@pytest.mark.parametrize("scheme", ["rpc", "amqp"])
async def test_what_is_too_large_for_rabbitmq_fails_its_task_alone(
    rabbit_url: str, queue: str, scheme: str
) -> None:
    backend = rabbit_url if scheme == "amqp" else "rpc://"
    async with Celeriac("large", rabbit_url, backend, default_queue=queue) as app:

        @app.task(name="make")
        async def make(size: int) -> str:
            return "x" * size

        async with app.worker():
            large, small = await make.send(3_000_000), await make.send(10)
            assert await small.wait(60) == "x" * 10
            with pytest.raises(
                EncodeError, match=r"result of make.*too large.* 3000\d+ is larger than .* \d+"
            ):
                await large.wait(60)
            with pytest.raises(EncodeError, match=r"message of take\[.*too large"):
                await app.send_task("take", ["x" * 3_000_000])
        letters = await app.connections().broker.dead.list(1000)
        assert queue not in [letter.queue for letter in letters]


README = """
import asyncio, sys
from celeriac import Celeriac

app = Celeriac("leak", broker=sys.argv[1], backend=sys.argv[2], default_queue=sys.argv[3])

@app.task(name="leak.add")
async def add(x: int, y: int) -> int:
    return x + y

async def main() -> None:
    async with app.worker():
        print(await (await add.send(2, 3)))

asyncio.run(main())
"""


@pytest.mark.parametrize("backend", ["rpc://", "the broker"])
def test_a_program_that_closes_nothing_itself_leaves_nothing_open(
    rabbit_url: str, queue: str, backend: str
) -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-c",
            README,
            rabbit_url,
            backend if ":" in backend else rabbit_url,
            queue,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "5\n"), ran.stderr
    assert "ResourceWarning" not in ran.stderr, ran.stderr


async def test_the_second_url_logs_in_with_its_own_user_and_goes_to_its_own_vhost(
    rabbit_server: RabbitServer, queue: str
) -> None:
    vhost, user = f"{queue}-vhost", f"{queue}-user"
    made = (
        f'rabbit_vhost:add(<<"{vhost}">>, <<"test">>), '
        f'rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"pass word">>, <<"test">>), '
        f'[rabbit_auth_backend_internal:set_permissions(U, <<"{vhost}">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>) '
        f'|| U <- [<<"{user}">>, <<"guest">>]].'
    )
    await asyncio.to_thread(rabbit_server.control, "eval", made)
    place = f"{HOST}:{rabbit_server.port}"
    url = f"amqp://guest:guest@{HOST}:1/;amqp://{user}:pass%20word@{place}/{vhost}"
    async with Celeriac("nodes", broker=url, backend="disabled://", default_queue=queue) as app:
        await app.send_task("shop.add", [1, 2])
        assert await app.connections().broker.depth(queue) == 1
    for there, count in ((vhost, 1), ("/", None)):
        with closing(rabbit_server.client(there)) as connection:
            channel = connection.channel()
            if count is None:
                with pytest.raises(amqp.NotFound):
                    channel.queue_declare(queue, passive=True)
            else:
                assert channel.queue_declare(queue, passive=True).message_count == count


async def test_within_the_block_of_a_worker_its_queues_exist(rabbit_url: str, queue: str) -> None:
    topic = QueueOptions(exchange=f"{queue}.topic", exchange_type="topic", routing_keys=("feed.#",))
    broker = AmqpBroker(rabbit_url, queues={queue: topic})
    app = Celeriac("at once", broker=broker, backend="disabled://")
    ran = asyncio.Event()

    async def note() -> None:
        ran.set()

    task = app.register("note", note)
    try:
        async with app, app.worker(queues=[queue]):
            await task.using(exchange=f"{queue}.topic", routing_key="feed.a").send()
            await soon(ran.wait())
    finally:
        await broker.close()
