"""Says which workers answer, and where tasks wait that nobody takes; a part of ``celeriac doctor``."""

from __future__ import annotations

from celeriac.cli.check import Check
from celeriac.cli.takers import DEADLINE, Takers, asked_takers, counted_takers
from celeriac.client.app import App
from celeriac.contracts.broker import Broker
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.wire.preview import counted

NAMED = 10
"""How many workers are named."""

START = "start one: celeriac -A MODULE worker; one with remote_control=False is not seen"


async def worker_checks(app: App, broker: Broker) -> list[Check]:
    """Return a line on the workers, and one for each queue where tasks wait in vain. Raises ``BrokerUnavailable``."""
    asked = await asked_takers(app)
    try:
        waiting = {queue: depth for queue in await broker.queues() if (depth := await broker.depth(queue))}
        counts = await counted_takers(app, list(waiting))
        paused = await app.control.paused()
    except BrokerUnavailable:
        raise
    except BrokerError:  # this user may not look; the check of the queues says so
        waiting, counts, paused = {}, None, frozenset()
    known = asked if counts is None else Takers({} if asked is None else asked.nodes, 0, counts)
    in_vain = [] if known is None else [queue for queue in waiting if known.nobody(queue)]
    return [
        _workers(asked),
        *(_paused(queue, waiting[queue]) for queue in waiting if queue in paused),
        *(_in_vain(queue, waiting[queue]) for queue in in_vain if queue not in paused),
    ]


def _workers(asked: Takers | None) -> Check:
    if asked is None:
        return Check("ok", "workers", "cannot be asked here, which no task needs")
    names = asked.workers
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    text = f"{len(names)}: {', '.join(names[:NAMED])}{more}" if names else "none answers"
    if asked.silent:
        late = f"{counted(asked.silent, 'worker')} did not answer within {DEADLINE:g} s"
        return Check("warn", "workers", f"{text}; {late}" if names else late, "is it stuck? See its log")
    return Check("ok", "workers", text) if names else Check("warn", "workers", text, START)


def _paused(queue: str, depth: int) -> Check:
    text = f"{counted(depth, 'task')} {_wait(depth)} in {queue}, which is paused"
    return Check("warn", "queues", text, f"celeriac queues resume {queue}")


def _in_vain(queue: str, depth: int) -> Check:
    return Check(
        "warn",
        "queues",
        f"{counted(depth, 'task')} {_wait(depth)} in {queue}, and no worker takes from it",
        f"celeriac -A MODULE worker -Q {queue}, or celeriac control add_consumer {queue}",
    )


def _wait(depth: int) -> str:
    return "waits" if depth == 1 else "wait"
