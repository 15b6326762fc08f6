"""Takes as many messages as there are free slots, and starts one supervised attempt for each.

The subscription holds the messages that cannot start yet: see ``Subscription.prefetch``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from celeriac.clock import Clock, set_within
from celeriac.contracts.broker import Broker, Delivery, Subscription
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost, Finding
from celeriac.retry import Backoff
from celeriac.worker.attempt import Attempt
from celeriac.worker.bodies import Bodies
from celeriac.worker.executor import Executor
from celeriac.worker.insist import Insist
from celeriac.worker.intake import Intake
from celeriac.worker.pausing import Pausing
from celeriac.worker.pool import PlacingPool
from celeriac.worker.reserving import Reserving
from celeriac.worker.revocations import RevocationList
from celeriac.worker.slots import Slots

logger = logging.getLogger("celeriac.worker")

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between tries while the broker is away."""

AT_ONCE = 64
"""Messages taken in one round trip: few enough that the broker fetches the next while these run."""

STEADY = 0.5
"""Seconds for which a broker must let a worker take, after an outage, to count as back."""

HEAD_START = 2
"""Rounds of the event loop that started attempts get before the worker asks an emptied queue again."""


class StopTimes(msgspec.Struct, frozen=True):
    """What a worker that stops waits for once the grace is over.

    :param landing: seconds that results and acknowledgements have to land.
    :param cancel: seconds that an attempt which still runs then has to react to a second cancellation.
    """

    landing: float = 5.0
    cancel: float = 1.0


class BrokerClock:
    """Tells the broker's time, by which a worker judges the times in messages.

    The broker delivers a parked message once it is due by the broker's own clock. A worker that judged the ETA by a
    slower clock would park it again, and get it back at once, again and again. So a worker judges ETA and expiry, and
    counts the countdown of a retry, by the broker's clock.

    :param clock: the app's clock.
    :ivar ahead: seconds by which the broker's clock is ahead of the app's, according to the last take.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self.ahead = 0.0

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._now() + self.ahead


class Consumer:
    """The worker's intake from one broker.

    :param queues: those to take from; changed by ``add_queue`` and ``drop_queue``.
    """

    def __init__(
        self,
        broker: Broker,
        queues: list[str],
        executor: Executor,
        bodies: Bodies,
        slots: Slots,
        insist: Insist,
        revocations: RevocationList,
        clock: BrokerClock,
        reserving: Reserving,
        placing: PlacingPool | None,
        pausing: Pausing,
        stop_times: StopTimes,
        on_ready: Callable[[], None],
        on_back: Callable[[], None],
        on_taken: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._queues = queues
        self._executor = executor
        self._slots = slots
        self._insist = insist
        self._revocations = revocations
        self._clock = clock
        self._bodies = bodies
        self._reserving = reserving
        self._placing = placing
        self._places = None if placing is None else self._free_places
        self._pausing = pausing
        self._stop_times = stop_times
        self._on_ready = on_ready
        self._on_back = on_back
        self._on_taken = on_taken
        self._loop = asyncio.get_running_loop()
        self.intake = Intake(broker, queues, slots)
        self._attempts = self.intake.attempts
        self._complaint = ""
        self._away_since: float | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self.ready = asyncio.Event()

    @property
    def attempts(self) -> int:
        """How many attempts are under way."""
        return len(self._attempts)

    async def run(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Subscribe, take messages and start attempts until ``stop``; survive every outage of the broker.

        :param prepare: does what is to be done before that; what it raises ends the run.

        Raises ``BrokerError`` when the broker refuses (a wrong password, a command that this user may not run) before
        the first subscription: the worker has no messages yet, and the person who starts it sees the error. A later
        refusal is waited out like an outage.
        """
        await prepare()
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while not self._stopping.is_set():
            try:
                if not self.ready.is_set():
                    tell(await self._broker.examine(self._queues))
                await self._pausing.follow(self)
                held = tuple(self._queues)
                async with self._broker.subscribe(held) as subscription:
                    self.intake.subscription = subscription
                    self._reserving.follow(subscription)
                    await self._follow_changes(subscription, held)
                    if not self.ready.is_set():
                        self.ready.set()
                        self._on_ready()
                    await self._take_until_stopped(subscription)
            except BrokerError as error:
                if not isinstance(error, BrokerUnavailable) and not self.ready.is_set():
                    raise
                # Only reached while subscribing: once subscribed, taking reconnects by itself.
                wait = backoff.pause()
                logger.warning(
                    "cannot subscribe to %s, again in %.1f s: %s", ", ".join(self._queues), wait, error
                )
                await set_within(self._stopping, wait)

    async def add_queue(self, queue: str) -> None:
        """Take from this queue too. Raises ``BrokerError`` where the broker refuses; then nothing has changed."""
        if queue in self._queues:
            return
        if (subscription := self.intake.subscription) is not None:
            await subscription.add_queue(queue)
        if queue not in self._queues:
            self._queues.append(queue)

    async def drop_queue(self, queue: str) -> None:
        """Stop taking from this queue; messages that were taken from it run on."""
        if queue in self._queues:
            self._queues.remove(queue)
        if (subscription := self.intake.subscription) is not None:
            await subscription.drop_queue(queue)

    def resize(self, concurrency: int) -> None:
        """Change how many attempts run at once."""
        self._slots.resize(concurrency)
        self._reserving.follow_slots()

    async def stop(self) -> None:
        """Stop taking. Messages that were taken run on."""
        self._stopping.set()
        self._slots.close()
        self._bodies.recall()
        if (subscription := self.intake.subscription) is not None:
            await subscription.stop()

    def hurry(self) -> None:
        """Make ``finish`` wait no longer."""
        self._hurry.set()

    async def finish(self, grace: float | None) -> int:
        """Wait up to ``grace`` seconds for running bodies, then cancel the rest, so that their messages are requeued.

        ``None`` waits for their end. Attempts whose bodies have ended get ``StopTimes.landing`` more seconds for
        result and acknowledgement. Returns how many messages were given back.
        """
        await self._wait_for_attempts(grace)
        given_back = self._bodies.stop_all()
        if running := self._running():
            await asyncio.wait(running, timeout=self._stop_times.landing)
        if left := self._running():
            for attempt in left:
                attempt.cancel()
            await asyncio.wait(left, timeout=self._stop_times.cancel)
            await self._executor.abandon()
        return given_back

    async def _take_until_stopped(self, subscription: Subscription) -> None:
        backoff: Backoff | None = None
        while not self._stopping.is_set():
            try:
                take = self._take_and_start if self._away_since is None else self._take_after_outage
                await take(subscription)
                backoff, self._complaint = None, ""
            except Exception as error:  # noqa: BLE001 - whatever stands in the broker, the worker goes on
                backoff = backoff or Backoff(FIRST_WAIT, LONGEST_WAIT)
                wait = backoff.pause()
                self._complain(error, wait)
                await set_within(self._stopping, wait)

    def _complain(self, error: Exception, wait: float) -> None:
        """Log why no message is taken; an error that time does not mend is logged once."""
        if isinstance(error, BrokerUnavailable):
            if self._away_since is None:
                self._away_since = self._loop.time()
            logger.warning("cannot take messages, again in %.1f s: %s", wait, error)
        elif (text := f"{type(error).__name__}: {error}") != self._complaint:
            self._complaint = text
            is_known = isinstance(error, BrokerError)
            logger.warning(
                "cannot take messages, tried again every %g s: %s",
                LONGEST_WAIT,
                error,
                exc_info=None if is_known else error,
            )

    async def _take_after_outage(self, subscription: Subscription) -> None:
        """Take again, and log that the broker is back once it answers and lets this worker take for a moment.

        Taking returns only once there is a message, and a broker may answer and refuse all else: the line would then
        come after every try. Raises as ``_take_and_start``.
        """
        await self._broker.ping()
        back = self._loop.call_later(STEADY, self._say_back, self._loop.time())
        try:
            await self._take_and_start(subscription)
        finally:
            back.cancel()
        self._say_back(self._loop.time())

    def _say_back(self, now: float) -> None:
        if self._away_since is not None:
            logger.warning("connected again after %.1f s", now - self._away_since)
            self._away_since = None
            self._on_back()

    async def _take_and_start(self, subscription: Subscription) -> None:
        free = await self._slots.wait_free(self._places)
        if free == 0:
            return
        wanted = min(free, AT_ONCE)
        subscription.idle = self._slots.running == 0
        deliveries = await subscription.take(wanted)
        self._clock.ahead = subscription.ahead
        if deliveries and subscription.revision != self._revocations.revoked.revision:
            # Insist: without the list, a revoked task would run; without an attempt, a taken message stays unsettled.
            await self._insist(
                partial(self._revocations.refresh, subscription.revision), "loading revocations"
            )
        self._on_taken()
        self.intake.taken.set()
        self._revocations.taken.set()
        if len(deliveries) > self._slots.free and self._places is None:
            await self._start_as_slots_get_free(deliveries)
        else:
            for delivery in deliveries:
                self._start(delivery)
        if len(deliveries) < wanted:
            # Short tasks that were just started get time to send their next step, so that the next take finds it.
            for _ in range(HEAD_START):
                await asyncio.sleep(0)
        if not deliveries and not self._stopping.is_set():
            # The broker was closed while the worker runs: asking again without a pause would only keep a core busy.
            await set_within(self._stopping, FIRST_WAIT)

    def _free_places(self) -> int:
        """Return how many attempts may wait for a slot: the pool takes their calls before that."""
        assert self._placing is not None
        return self._placing.places(self._slots.running)

    async def _start_as_slots_get_free(self, deliveries: Sequence[Delivery]) -> None:
        """Start each delivery once a slot is free: they became fewer after the take; after a stop, requeue it."""
        for delivery in deliveries:
            if await self._slots.wait_free():
                self._start(delivery)
                self._revocations.taken.set()
            else:
                with suppress(BrokerError, DeliveryLost):  # the broker redelivers it by itself
                    await delivery.receipt.requeue()

    async def _follow_changes(self, subscription: Subscription, held: Sequence[str]) -> None:
        """Apply the queues that were added and dropped while the subscription was made."""
        for queue in set(self._queues) - set(held):
            await subscription.add_queue(queue)
        for queue in set(held) - set(self._queues):
            await subscription.drop_queue(queue)

    def _start(self, delivery: Delivery) -> None:
        attempt = Attempt(delivery, delivery.receipt)
        if self._places is None or self._slots.free:
            self._slots.take(attempt)
        else:
            self._slots.wait(attempt)
        # ``create_task`` and a done callback would cost as much as the rest, so the task is made directly here, and
        # removes itself from the set when it ends.
        attempt.running = asyncio.Task(
            self._executor.run(attempt, self._attempts), loop=self._loop, name="celeriac attempt"
        )
        self._attempts.add(attempt)

    def _running(self) -> list[asyncio.Task[None]]:
        return [attempt.running for attempt in self._attempts if attempt.running is not None]

    async def _wait_for_attempts(self, grace: float | None) -> None:
        if not (running := self._running()):
            return
        hurried = asyncio.create_task(self._hurry.wait())
        finished = asyncio.ensure_future(asyncio.wait(running))
        await asyncio.wait([hurried, finished], timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for waiter in (hurried, finished):
            waiter.cancel()


def tell(findings: Sequence[Finding]) -> None:
    """Log the settings of broker and result store that work but may cause harm."""
    for finding in findings:
        logger.warning("%s; %s", finding.text, finding.fix)
