"""Puts a worker's parts together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from celeriac.canvas.budget import Budget
from celeriac.client.app import App, Connections
from celeriac.client.periodic import run_marks
from celeriac.contracts.server import Delegating
from celeriac.worker.admission import Admission
from celeriac.worker.bodies import Bodies
from celeriac.worker.builtin import Repertoire
from celeriac.worker.calling import Calling
from celeriac.worker.consumer import BrokerClock, Consumer, StopTimes
from celeriac.worker.effects import Effects
from celeriac.worker.errbacks import Errbacks
from celeriac.worker.executor import Executor
from celeriac.worker.insist import Insist
from celeriac.worker.judging import Judge
from celeriac.worker.listeners import Listeners
from celeriac.worker.mending import Mending
from celeriac.worker.pausing import Pausing
from celeriac.worker.plans import Plans
from celeriac.worker.pool import PlacingPool, Pool
from celeriac.worker.rate_limits import RateLimits
from celeriac.worker.reports import Reports
from celeriac.worker.reserving import Reserving
from celeriac.worker.revocations import RevocationList
from celeriac.worker.slots import Slots
from celeriac.worker.workflows import Workflows

SETTLING_FACTOR, SETTLING_LEAST = 4, 2000


class Parts(msgspec.Struct, frozen=True):
    """The parts that a worker starts and stops."""

    consumer: Consumer
    bodies: Bodies
    revocations: RevocationList
    rate_limits: RateLimits
    slots: Slots
    pausing: Pausing


def assemble(
    app: App,
    connections: Connections,
    pool: Pool,
    concurrency: int,
    queues: list[str],
    insist: Insist,
    listeners: Listeners,
    node: str,
    state: Mapping[str, Any],
    stop_times: StopTimes,
    on_taken: Callable[[], None],
) -> Parts:
    """Return the parts of one worker, in the running event loop.

    :param queues: those to take from, which the consumer keeps up to date.
    :param node: the worker's name.
    :param state: what the worker's lifespans yielded.
    :param on_taken: called each time that messages were taken.
    """
    backend, settings, now = connections.backend, app.settings, app.clock.now
    clock = BrokerClock(app.clock)
    slots = Slots(concurrency, max(SETTLING_LEAST, SETTLING_FACTOR * concurrency))
    calling = Calling(pool)
    settlements = connections.settlements
    delegating = settlements if isinstance(settlements, Delegating) else None
    plans = Plans(settings)
    bodies = Bodies(calling, pool, plans, slots, insist, delegating, listeners.soft_limit_passed)
    errbacks = Errbacks(app.tasks, calling)
    budget = Budget(settings.max_follow_ups, settings.max_follow_up_bytes)
    workflows = Workflows(backend, connections.publisher, insist, errbacks, now, app.defaults, budget)
    tasks = Repertoire(app, calling, workflows)
    revocations = RevocationList(connections.revocations, app.clock.monotonic)
    reserving = Reserving(settings.prefetch, settings.backlog, slots, bodies.recall)
    rate_limits = RateLimits(tasks, settings.rate_limit)
    judge = Judge(settings, plans, backend, tasks, errbacks.is_inline, clock.now, node)
    admission = Admission(
        tasks,
        app.codecs,
        clock.now,
        plans,
        workflows.copies,
        revocations,
        judge,
        listeners,
        insist,
        budget,
        reserving,
        rate_limits,
        calls_back_unknown=app.calls_back_unknown,
    )
    runs = run_marks(connections)
    reports = Reports(backend, listeners.reported)
    effects = Effects(
        backend, reports, settlements, workflows, errbacks, insist, connections.broker.failed, runs, node
    )
    mending = Mending(admission, judge, effects, listeners)
    executor = Executor(
        plans,
        reports,
        tasks,
        admission,
        bodies,
        judge,
        slots,
        effects,
        listeners,
        mending,
        node,
        state,
    )
    pausing = Pausing(connections.pauses, queues)
    consumer = Consumer(
        connections.broker,
        queues,
        executor,
        bodies,
        slots,
        insist,
        revocations,
        clock,
        reserving,
        pool if isinstance(pool, PlacingPool) else None,
        pausing,
        stop_times,
        partial(listeners.worker_ready, node),
        partial(listeners.worker_reconnected, node),
        on_taken,
    )
    return Parts(consumer, bodies, revocations, rate_limits, slots, pausing)
