"""The events of one worker: puts the announcer, the heart and its stand-in together."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from celeriac.client.app import App
from celeriac.client.event_sender import EventSender
from celeriac.contracts.fanout import Fanout
from celeriac.errors import BrokerUnavailable
from celeriac.servers.url_parts import scheme_of
from celeriac.wire.event import TASK_KEY, EventWriter
from celeriac.worker.events.announcer import Announcer
from celeriac.worker.events.heart import LAST_EVENTS, Heart, utcoffset
from celeriac.worker.events.share import Share
from celeriac.worker.events.stand_in import StandIn
from celeriac.worker.listeners import Listener
from celeriac.worker.logical_clock import LogicalClock


class Events(Listener):
    """Starts and ends the events of a worker, and switches them on and off.

    :param task_events: whether the group ``task`` is on.
    :param heartbeats: whether the group ``worker`` is on.
    :ivar announcer: makes events of what becomes of messages; a listener besides this one.
    """

    def __init__(
        self,
        app: App,
        fanout: Fanout,
        node: str,
        clock: LogicalClock,
        *,
        task_events: bool,
        heartbeats: bool,
    ) -> None:
        share = Share(app.settings.event_rate_limit)
        self._sender = EventSender(
            fanout,
            app.settings.event_exchange,
            EventWriter(node, os.getpid(), utcoffset()),
            TASK_KEY,
            node,
        )
        self.announcer = Announcer(self._sender, app.tasks, clock, app.clock.now, share, task_events)
        self.heart = Heart(node, self._sender, clock, app.clock.now, share, self.announcer)
        self._heartbeats = heartbeats
        self._stand_in: StandIn | None = None
        self._app = app
        self._can_stand_in = bool(app.broker_url) and scheme_of(app.broker_url) != "memory"

    def worker_ready(self, node: str) -> None:
        if self._heartbeats:
            self.heart.start()
            if self._can_stand_in:
                self._stand_in = StandIn(self._app, node, self.heart, asyncio.get_running_loop())
                self._stand_in.start()

    async def finish(self) -> None:
        """Send what is left, then that the worker has ended."""
        if self._stand_in is not None:
            self._stand_in.stop()
        await self._sender.finish(LAST_EVENTS)
        await self.heart.stop()

    async def beat(self) -> None:
        """Send a heartbeat now, and events again: a monitor has come."""
        self._sender.wake()
        try:
            await self.heart.beat_once()
        except BrokerUnavailable:
            return

    def enable(self) -> bool:
        """Switch the group ``task`` on; return whether it was off."""
        self._sender.wake()
        was, self.announcer.enabled = self.announcer.enabled, True
        return not was

    def disable(self) -> bool:
        """Switch the group ``task`` off; return whether it was on."""
        was, self.announcer.enabled = self.announcer.enabled, False
        return was

    @property
    def sent(self) -> int:
        """Events that reached a monitor."""
        return self._sender.sent

    @property
    def dropped(self) -> int:
        """Events that were dropped because the broker was away for long."""
        return self._sender.dropped

    def numbers(self) -> dict[str, Any]:
        """Return the part of ``inspect stats`` about the events."""
        sender = self._sender
        return {
            "enabled": self.announcer.enabled,
            "sent": sender.sent,
            "dropped": sender.dropped,
            "listeners": sender.listeners,
            "sampled": self.heart.sampled,
        }
