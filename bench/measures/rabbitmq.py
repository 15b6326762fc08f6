"""RabbitMQ: tasks with results by ``rpc://``, beside a bare loop too; sending with confirms; an idle worker."""

import json
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.measures.consume import Consumed, cpu_row, rate_row, watch
from bench.measures.idle import SETTLING
from bench.measures.send import AT_ONCE
from bench.plan import Plan, tell
from bench.rabbit import RabbitGround, standing
from bench.rows import Row, at_least, at_least_times, at_most
from bench.workers import CELERY, Contender, Running, bare_rabbit, celeriac, run_client


def measure(plan: Plan) -> list[Row]:
    """Consuming and sending in turns on one node, then idling on two."""
    sizes = plan.sizes
    with RabbitGround() as ground:
        plan.machine.servers["RabbitMQ"] = ground.version()
        consumed = plan.in_turns(
            "RabbitMQ consume",
            {
                "celery": partial(consume, ground, CELERY, sizes.consume_rabbit_celery),
                "celeriac": partial(consume, ground, celeriac(), sizes.consume_rabbit),
                "bare loop": partial(consume_bare, ground, sizes.consume_rabbit),
            },
        )
        sent = plan.in_turns(
            "RabbitMQ send",
            {
                "Celery delay, confirmed": partial(
                    sending, ground, "celery", "delay-confirmed", sizes.delay_rabbit
                ),
                f"send, {AT_ONCE} at a time": partial(
                    sending, ground, "celeriac", "send", sizes.send_rabbit, AT_ONCE
                ),
            },
        )
    theirs, ours, bare = consumed["celery"], consumed["celeriac"], consumed["bare loop"]
    parts = [run.rate / least.rate for run, least in zip(ours, bare, strict=True)]
    delays, sends = ([run["rate"] for run in runs] for runs in sent.values())
    return [
        rate_row("RabbitMQ, results by rpc", ours, theirs, at_least_times(6.5)),
        cpu_row("RabbitMQ", ours, theirs),
        Row("RabbitMQ: a bare loop", "tasks/s", [run.rate for run in bare]),
        Row("RabbitMQ: rate, part of a bare loop", "", parts, goal=at_least(0.65)),
        Row(
            f"RabbitMQ: send with confirms, {AT_ONCE} at a time",
            "messages/s",
            sends,
            delays,
            at_least_times(6),
        ),
        *idle(plan),
    ]


def consume(ground: RabbitGround, contender: Contender, count: int) -> Consumed:
    """Fill the queue, start the worker, measure, check, stop."""
    ground.clear()
    ids = ground.fill(count)
    with contender.running(ground.env) as worker:
        consumed = watch(ground, worker, count)
        ground.check(worker, ids, 5)
    ground.check_empty()
    return consumed


def consume_bare(ground: RabbitGround, count: int) -> Consumed:
    """Do the same with a loop that has nothing around it, and whose results are all alike."""
    ground.clear()
    ground.fill(count)
    with bare_rabbit().running(ground.env) as loop:
        consumed = watch(ground, loop, count)
    ground.check_empty()
    return consumed


def sending(ground: RabbitGround, module: str, *arguments: object) -> dict[str, Any]:
    """Let a client send into an empty queue; check that everything is there."""
    ground.clear()
    told: dict[str, Any] = json.loads(run_client(module, *arguments, env=ground.env))
    ground.check_sent(told["sent"])
    return told


def idle(plan: Plan) -> list[Row]:
    """Both workers at once, each on a node of its own."""
    tell(f"RabbitMQ idle: celery and celeriac for {plan.sizes.idle:.0f} s")
    with ExitStack() as stack:
        pairs = [stack.enter_context(standing(contender)) for contender in (CELERY, celeriac())]
        time.sleep(SETTLING)
        start, before = time.perf_counter(), [worker.fine_cpu_seconds() for _, worker in pairs]
        time.sleep(plan.sizes.idle)
        seconds, after = time.perf_counter() - start, [_looked_at(worker) for _, worker in pairs]
        celery, ours = ((then - first) / seconds * 100 for first, then in zip(before, after, strict=True))
        theirs, connections = (worker.connections(ground.port) for ground, worker in pairs)
    return [
        Row("RabbitMQ idle: CPU", "% of a core", [ours], [celery], at_most(0.5), less_is_better=True),
        Row(
            "RabbitMQ idle: connections",
            "connections",
            [connections],
            [theirs],
            at_most(1),
            less_is_better=True,
        ),
    ]


def _looked_at(worker: Running) -> float:
    worker.require_alive()
    return worker.fine_cpu_seconds()
