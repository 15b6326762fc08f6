"""The loop of a ticking process: declares its entries, leads or stands by, and ticks what is due.

Rules: it sleeps until the next slot, the next renewal of the lease, or news of a change, whichever comes first. In an
outage nothing is forgotten: it leads anew when the broker is back, and learns from it what was ticked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from celeriac.beat.agenda import Agenda, Line, line_of
from celeriac.beat.entry import Entry, slot_key
from celeriac.beat.following import Following
from celeriac.beat.kept import NEWS, Contents, Kept
from celeriac.beat.leading import Leading
from celeriac.beat.places import places_of
from celeriac.beat.slot_clock import SlotClock
from celeriac.beat.source import Source, SourceTaken
from celeriac.beat.ticking import Arguments, Ticking, Undeclared
from celeriac.client.app import App
from celeriac.clock import set_within
from celeriac.contracts.fanout import Binding
from celeriac.errors import BackendError, BackendUnavailable, BrokerError, BrokerUnavailable, CeleriacError
from celeriac.retry import Backoff
from celeriac.wire.envelope import Envelope

logger = logging.getLogger("celeriac.beat")

_AGAIN = 6 * 3600.0
"""Seconds after which a process declares its entries again."""

_FORGOTTEN = 86400.0
"""Seconds after which an entry is dropped that no process declares any more."""

_LOOK = 30.0
"""Seconds between looks for a change whose news was lost."""

_HELD = 0.5
"""Seconds between looks whether a run has ended that another waits for."""

_AT_ONCE = 500
"""Ticks that are made together, and lines that are made without giving the event loop a turn."""


def _nothing(_: float) -> None:
    """Stand in for a callback that was not given."""


class Ticker:
    """Ticks the entries of an app in the running event loop.

    :param declared: the entries that this process declares.
    :param source: where another program keeps further ones.
    :param on_tick: called with the seconds by which a slot was late when its messages were sent.
    :param lazy: what makes the arguments of the lazy ones.
    :ivar ready: is set once it leads or stands by.
    """

    def __init__(
        self,
        app: App,
        declared: Iterable[Entry],
        lazy: Mapping[str, Arguments],
        source: Source | None = None,
        on_tick: Callable[[float], None] = _nothing,
    ) -> None:
        self._app = app
        self._on_tick = on_tick
        self._following = None if source is None else Following(source)
        self._clock = SlotClock(app.clock)
        self._declared = list(declared)
        places = places_of(app.connections())
        self._places = places
        self._leading = Leading(places, app.name, self._clock, app.settings.lease)
        self._kept = Kept(places.board.sets, places.broker, app.name, self._clock)
        self._ticking = Ticking(places, app.outbox, app.send_listeners, lazy)
        self._agenda = Agenda()
        self._contents = Contents({}, frozenset(), -1)
        self._news = asyncio.Event()
        self._stopping = False
        self._started = self._clock.monotonic()
        self._declare_at = self._look_at = 0.0
        self._led = False
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Tick until ``stop``. Raises ``SourceTaken``, and nothing that a broker or result store does."""
        listening = asyncio.create_task(self._listen(), name="celeriac-beat-news")
        backoff = Backoff(0.1, 5.0)
        try:
            while not self._stopping:
                try:
                    await self._turn()
                    self.ready.set()
                    backoff.reset()
                    await self._rest(self._pause())
                except (BrokerError, BackendError) as error:
                    self._leading.lose()
                    self._led = False
                    logger.warning("periodic tasks wait: %s", error)
                    await self._rest(backoff.pause())
                except SourceTaken:
                    raise
                except Exception:
                    self._leading.lose()
                    self._led = False
                    logger.exception("periodic tasks wait after an error")
                    await self._rest(backoff.pause())
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            if self._leading.leads:
                await self._leading.release()
                await self._kept.announce()

    def stop(self) -> None:
        """Make ``run`` return, after what is being ticked."""
        self._stopping = True
        self._news.set()

    async def _turn(self) -> None:
        now = self._clock.monotonic()
        if self._following is not None and now >= self._following.again:
            await self._following.follow(self._kept, self._places.beat, self._app.name, self._started, now)
        if now >= self._declare_at:
            elsewhere = self._following.names if self._following is not None else ()
            declared = [entry for entry in self._declared if entry.name not in elsewhere]
            await self._kept.declare(declared, self._started, again=self._declare_at > 0)
            self._declare_at = now + _AGAIN
        news = self._news.is_set()
        self._news.clear()
        if news:
            self._leading.hurry()
        await self._leading.renew()
        if not self._leading.leads:
            self._led = False
        elif not self._led:
            await self._take_over()
        elif news or now >= self._look_at:
            await self._look()
        if self._leading.leads:
            await self._tick_due()

    def _pause(self) -> float:
        """Return the seconds until there is something to do."""
        pause = self._leading.rest
        if self._following is not None:
            pause = min(pause, self._following.again - self._clock.monotonic())
        if self._leading.leads and (first := self._agenda.first()) is not None:
            pause = min(pause, first - self._clock.now())
        return pause

    async def _rest(self, seconds: float) -> None:
        if seconds > 0:
            await set_within(self._news, seconds)

    async def _listen(self) -> None:
        """Set ``_news`` whenever the entries of this app have changed."""
        fanout, backoff = self._places.broker.fanout, Backoff(1.0, 30.0)
        if fanout is None:
            return
        while True:
            try:
                async with fanout.listen([Binding(exchange=NEWS)]) as heard:
                    self._news.set()
                    backoff.reset()
                    async for news in heard:
                        if isinstance(news, Envelope) and news.body == self._app.name.encode():
                            self._news.set()
            except BrokerError as error:
                logger.debug("changes of periodic tasks are not heard: %s", error)
                await asyncio.sleep(backoff.pause())

    async def _take_over(self) -> None:
        """Begin to lead: learn from the broker which slots were ticked."""
        alive_since = await self._leading.look_back()
        self._agenda.clear()
        self._contents = Contents({}, frozenset(), -1)
        await self._refresh(alive_since)
        self._led = True
        logger.debug("this process ticks the periodic tasks of %s", self._app.name)

    async def _look(self) -> None:
        """Look whether the entries have changed."""
        self._look_at = self._clock.monotonic() + _LOOK
        if await self._kept.revision() != self._contents.revision:
            await self._refresh(self._leading.alive_since)

    async def _refresh(self, alive_since: float) -> None:
        contents = await self._kept.load()
        stale = self._stale(contents, alive_since)
        wanted = {
            name: entry
            for name, entry in contents.entries.items()
            if not entry.paused and name not in contents.paused and name not in stale
        }
        new = [entry for name, entry in wanted.items() if not self._is_known(name, entry)]
        last = dict(await self._places.beat.last([slot_key(self._app.name, entry.name) for entry in new]))
        now = self._clock.now()
        for name in self._contents.paused & wanted.keys():
            last[slot_key(self._app.name, name)] = now  # nothing is missed by a pause
        self._agenda.keep(wanted)
        for number, entry in enumerate(new, 1):
            self._add(entry, last, alive_since)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._contents = contents
        self._look_at = self._clock.monotonic() + _LOOK
        if stale:
            logger.info("dropping periodic tasks that nobody declares any more: %s", ", ".join(sorted(stale)))
            await self._kept.remove(stale)

    def _add(self, entry: Entry, last: Mapping[str, float], alive_since: float) -> None:
        key = slot_key(self._app.name, entry.name)
        try:
            self._agenda.put(line_of(entry, key, last.get(key), alive_since, self._clock.now()))
        except Exception as error:  # noqa: BLE001 - what is on the board may be anybody's
            logger.error("%s is not ticked: %r", entry.name, error)

    def _is_known(self, name: str, entry: Entry) -> bool:
        line = self._agenda.lines.get(name)
        return line is not None and line.entry.since == entry.since and line.entry.rule == entry.rule

    def _stale(self, contents: Contents, alive_since: float) -> set[str]:
        """Return the entries that no process has declared for a day, in which there was always one."""
        border = self._clock.now() - _FORGOTTEN
        if alive_since > border:
            return set()
        return {name for name, entry in contents.entries.items() if 0 < entry.seen < border}

    async def _tick_due(self) -> None:
        """Tick what is due, as long as this process leads."""
        while self._leading.leads and not self._stopping:
            now = self._clock.now()
            due = self._agenda.take_due(now, _AT_ONCE)
            if not due:
                return
            outcomes = await asyncio.gather(*(self._tick(line) for line in due), return_exceptions=True)
            for line in due:
                self._agenda.put(line)
            if self._following is not None:
                await self._following.tell(self._kept, self._places.beat, self._app.name)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            if not self._leading.rest:
                await self._leading.renew()

    async def _tick(self, line: Line) -> None:
        """Tick the next slot of a line; what cannot be sent is logged, and left out."""
        slot, now = line.slot, self._clock.now()
        assert slot is not None
        try:
            done = await self._ticking.tick(line.entry, line.key, slot)
        except (BrokerUnavailable, BackendUnavailable):
            raise
        except Undeclared as error:
            logger.warning("%s", error)
            line.again = now + _LOOK
            return
        except CeleriacError as error:
            logger.error("%s cannot be sent; its slot is left out: %s", line.entry.name, error)
            done = True
        except Exception:
            logger.exception("%s cannot be sent; its slot is left out", line.entry.name)
            done = True
        if done:
            self._on_tick(max(0.0, self._clock.now() - slot))
            if self._following is not None:
                self._following.done[line.entry.name] = slot
            line.passed(self._clock.now())
        else:
            line.hold(now, now + _HELD)
