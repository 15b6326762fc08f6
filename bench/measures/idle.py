"""A worker on Redis that has nothing to do: processor time, commands to the server, connections, memory."""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

from bench.ground import Ground, standing
from bench.plan import Plan, tell
from bench.rows import Row, at_most
from bench.workers import CELERY, Running, celeriac

SETTLING = 12.0
"""Seconds after its first task in which a worker may still be busy, and its process that renews leases be there."""
LOOKS = 2
"""Requests that the bench itself makes from one look to the next."""


@dataclass(frozen=True)
class Idled:
    """One stretch of idling.

    :param cpu: per cent of one core.
    :param commands: what the server ran for it, in scripts too.
    :param requests: how often it was asked.
    :param memory: resident megabytes.
    :param own_memory: the same, shared pages divided.
    :param connections: to the server, at the end.
    """

    cpu: float
    commands: Counter[str]
    requests: int
    memory: float
    own_memory: float
    connections: int


class Stretch:
    """The time between two looks at a worker and at the server it alone talks to."""

    def __init__(self, ground: Ground, worker: Running) -> None:
        self._ground, self._worker = ground, worker
        self._start, self._cpu = time.perf_counter(), worker.fine_cpu_seconds()
        self._commands, self._requests = ground.commands(), ground.requests()

    def end(self) -> tuple[Idled, float]:
        """What was used, and the seconds it took."""
        self._worker.require_alive()
        seconds = time.perf_counter() - self._start
        worker = self._worker
        cpu = (worker.fine_cpu_seconds() - self._cpu) / seconds * 100
        commands = self._ground.commands() - self._commands
        requests = self._ground.requests() - self._requests - LOOKS
        connections = worker.connections(self._ground.port)
        return Idled(cpu, commands, requests, worker.memory(), worker.own_memory(), connections), seconds


def measure(plan: Plan) -> list[Row]:
    """Both workers at once, each on a server of its own: idling is no contest for the processor."""
    tell(f"idle: celery and celeriac for {plan.sizes.idle:.0f} s")
    with ExitStack() as stack:
        pairs = [stack.enter_context(standing(plan.molds, contender)) for contender in (CELERY, celeriac())]
        time.sleep(SETTLING)
        stretches = [Stretch(ground, worker) for ground, worker in pairs]
        time.sleep(plan.sizes.idle)
        (celery, _), (ours, seconds) = (stretch.end() for stretch in stretches)
    return [
        Row("idle: CPU", "% of a core", [ours.cpu], [celery.cpu], at_most(0.1), less_is_better=True),
        Row(
            "idle: commands, one queue",
            "commands/s",
            [ours.commands.total() / seconds],
            [celery.commands.total() / seconds],
            at_most(1.5),
            less_is_better=True,
            details={"seconds": seconds, "commands": ours.commands, "celery_commands": celery.commands},
        ),
        Row(
            "idle: requests, one queue",
            "requests/s",
            [ours.requests / seconds],
            [celery.requests / seconds],
            less_is_better=True,
        ),
        Row(
            "idle: connections",
            "connections",
            [ours.connections],
            [celery.connections],
            at_most(3),
            less_is_better=True,
        ),
        Row("idle: memory, RSS", "MB", [ours.memory], [celery.memory], at_most(50), less_is_better=True),
        Row("idle: memory, PSS", "MB", [ours.own_memory], [celery.own_memory], less_is_better=True),
    ]
