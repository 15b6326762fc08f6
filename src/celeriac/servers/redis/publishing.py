"""Publishes messages, many to a round trip.

Rules: messages of one list go in one command and keep their order. A queue is declared before its first message. A
message without a route is an error, and is never dropped. A call ends when no byte has moved for the timeout.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial

import msgspec

from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError, EncodeError
from celeriac.servers.coalesce import TRIP_BYTES, Coalescer, by_size
from celeriac.servers.redis.bindings import Bindings
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.large import LargeValues
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.parking import Later, Parking
from celeriac.servers.redis.protocol.connection import LARGE
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import pack
from celeriac.wire.names import is_text

_BATCH = 1000
_MANY_BATCH = 2500
_WITHOUT_PAUSE = 500
_LARGE_BODY = LARGE // 2
"""Bytes of a body whose frame may be large."""

Message = tuple[Envelope, Route]
Answers = list[BaseException | None]
_Name = tuple[str | None, str, str]
_Trip = list[tuple[str, list[int], list[bytes]]]


class Publishing:
    """Publishes for one broker."""

    def __init__(self, link: Link, keys: Keys, bindings: Bindings, parking: Parking) -> None:
        self._link = link
        self._keys = keys
        self._bindings = bindings
        self._parking = parking
        self._declared: set[_Name] = set()
        self._large = LargeValues(link)
        self._publish: Coalescer[tuple[float, Message], None] = Coalescer(self._flush, _BATCH)

    async def publish(self, envelope: Envelope, route: Route) -> None:
        """Queue one message for the next round trip; one that is large goes by itself."""
        self._check(route)
        if len(envelope.body) > _LARGE_BODY:
            await self._publish_large((envelope, route))
            return
        await self._publish.lead((asyncio.get_running_loop().time(), (envelope, route)))

    async def publish_many(self, messages: Sequence[Message]) -> None:
        """Publish in order; raise the first refusal after the batch it was in.

        A message that cannot be encoded, or is too large, is found before any is sent.
        """
        for _, route in messages:
            self._check(route)
        frames = await _pack_all(messages)
        await self._check_sizes(messages, frames)
        for start in range(0, len(messages), _MANY_BATCH):
            end = start + _MANY_BATCH
            for answer in await self._send(messages[start:end], frames[start:end]):
                if answer is not None:
                    raise answer

    async def publish_once(self, key: str, messages: Sequence[Message]) -> bool:
        """Publish in order unless that was done under this key; raise the first refusal."""
        later = await self.prepare(messages)
        sizes = [len(message.frame) for message in later]
        if max(sizes, default=0) < LARGE:
            return await self._parking.add_once((key, later))
        await self._large.check(sizes, lambda place: _name(messages[later[place].position]))
        largest = later[sizes.index(max(sizes))]
        add = partial(self._parking.add_once_alone, (key, later))
        return await self._large.send(max(sizes), _name(messages[largest.position]), add)

    async def prepare_small(self, messages: Sequence[Message]) -> list[Later]:
        """Do as ``prepare``; raise ``EncodeError`` for a message that the server may not take."""
        later = await self.prepare(messages)
        sizes = [len(message.frame) for message in later]
        await self._large.check(sizes, lambda place: _name(messages[later[place].position]))
        return later

    async def prepare(self, messages: Sequence[Message]) -> list[Later]:
        """Declare the queues of these messages; return the form that scripts take. Raises the first refusal."""
        for _, route in messages:
            self._check(route)
        await self._declare(self._undeclared([route for _, route in messages]))
        timed = [(envelope, _timed(route)) for envelope, route in messages]
        answers: Answers = [None] * len(messages)
        _, later = await self._sort(timed, await _pack_all(timed), answers)
        for answer in answers:
            if answer is not None:
                raise answer
        return later

    async def forget_once(self, key: str) -> None:
        """Keep the key for a short time only."""
        await self._parking.forget_once(key)

    async def declare(self, queues: Sequence[str]) -> None:
        """Write the bindings of these queues."""
        routes = [Route(routing_key=queue, queue=queue) for queue in queues]
        for route in routes:
            self._check(route)
        await self._declare(self._undeclared(routes))

    async def drain(self) -> None:
        """Return when everything queued so far was answered."""
        await self._publish.drain()
        await self._parking.drain()

    def _check(self, route: Route) -> None:
        for name in (route.routing_key, route.exchange, route.queue):
            if name and not is_text(name):
                raise EncodeError(f"{name!r} is no text that a Redis key can hold; give it another name")

    async def _check_sizes(self, messages: Sequence[Message], frames: Sequence[bytes]) -> None:
        await self._large.check([len(frame) for frame in frames], lambda place: _name(messages[place]))

    async def _publish_large(self, message: Message) -> None:
        frames = await _pack_all([message])

        async def send() -> None:
            (answer,) = await self._send([message], frames)
            if answer is not None:
                raise answer

        await self._large.send(len(frames[0]), _name(message), send, repeatable=False)

    async def _flush(self, items: Sequence[tuple[float, Message]]) -> Answers:
        oldest = items[0][0]
        messages = [message for _, message in items]
        if sum(len(envelope.body) for envelope, _ in messages) > LARGE:
            return await self._send_each(messages)  # each round trip has a deadline, put off while bytes move
        try:
            async with asyncio.timeout_at(oldest + self._link.timeout):
                return await self._send_each(messages)
        except TimeoutError as error:
            raise self._link.translate(error) from error

    async def _send_each(self, messages: Sequence[Message]) -> Answers:
        """Send each message that can be sent; the answer for any other is its error."""
        frames = [_pack_or_say(message, tag) for message, tag in zip(messages, _tags(messages), strict=True)]
        for place, frame in enumerate(frames):
            if isinstance(frame, bytes) and len(frame) >= LARGE:  # by its headers
                try:
                    await self._check_sizes([messages[place]], [frame])
                except EncodeError as error:
                    frames[place] = error
        return await self._send(messages, frames)

    async def _send(self, messages: Sequence[Message], frames: Sequence[bytes | EncodeError]) -> Answers:
        answers: Answers = [frame if isinstance(frame, EncodeError) else None for frame in frames]
        new = self._undeclared([route for _, route in messages])
        if any(route.exchange or route.due is not None for _, route in messages):
            await self._declare(new)
            new = {}
        lists, later = await self._sort(messages, frames, answers)
        trips = _pack_trips(lists)
        await self._deliver(trips, answers, new)
        await self._park(later, answers)
        return answers

    async def _sort(
        self, messages: Sequence[Message], frames: Sequence[bytes | EncodeError], answers: Answers
    ) -> tuple[dict[str, list[tuple[int, bytes]]], list[Later]]:
        """Return the frames of each list with their positions, and the messages for later.

        A message that cannot be sent gets its error at once.
        """
        lists: dict[str, list[tuple[int, bytes]]] = {}
        later: list[Later] = []
        places: dict[tuple[str, str, int], list[tuple[str, str]]] = {}
        for position, ((envelope, route), frame) in enumerate(zip(messages, frames, strict=True)):
            if isinstance(frame, EncodeError):
                continue
            place = (route.exchange, route.routing_key, envelope.priority)
            found = places.get(place)
            try:
                if found is None:
                    found = places[place] = await self._find_lists(route, envelope.priority)
            except CeleriacError as error:
                if isinstance(error, BrokerUnavailable):
                    raise
                answers[position] = error
                continue
            for queue, key in found:
                if route.due is not None:
                    later.append(Later(position, queue, key, envelope.priority, route.due, frame))
                else:
                    lists.setdefault(key, []).append((position, frame))
        return lists, later

    async def _find_lists(self, route: Route, priority: int) -> list[tuple[str, str]]:
        """Return each queue with its list."""
        queues = [route.routing_key]
        if route.exchange:
            queues = await self._bindings.match(route.exchange, route.routing_key)
        if not queues:
            raise BrokerError(
                f"no queue is bound to exchange {route.exchange!r} with routing key {route.routing_key!r}; "
                "start a worker of the queue first, or give the queue by name"
            )
        return [(queue, self._keys.list_for(queue, priority)) for queue in queues]

    async def _park(self, later: Sequence[Later], answers: Answers) -> None:
        try:
            for message, answer in zip(later, await self._parking.add(later), strict=True):
                answers[message.position] = answers[message.position] or answer
        except BrokerError as error:
            self._declared.clear()
            _fail(answers, [message.position for message in later], error)

    async def _deliver(
        self,
        trips: list[_Trip],
        answers: Answers,
        new: dict[_Name, Route],
    ) -> None:
        declarations = self._declarations(new)
        for number, trip in enumerate(trips):
            commands = [("LPUSH", key, *frames) for key, _, frames in trip]
            try:
                replies = await self._link.calls([*declarations, *commands])
            except BrokerError as error:
                self._declared.clear()
                for _, positions, _ in (part for rest in trips[number:] for part in rest):
                    _fail(answers, positions, error)
                return
            self._declared.update(new)
            for (_, positions, _), reply in zip(trip, replies[len(declarations) :], strict=True):
                if isinstance(reply, Exception):
                    _fail(answers, positions, reply)
            declarations, new = [], {}

    def _undeclared(self, routes: Sequence[Route]) -> dict[_Name, Route]:
        declared = self._declared
        wanted = {
            (route.queue, route.exchange, route.routing_key): route
            for route in routes
            if route.queue is not None
        }
        return {name: route for name, route in wanted.items() if name not in declared}

    def _declarations(self, new: dict[_Name, Route]) -> list[tuple[str, ...]]:
        return [
            command
            for route in new.values()
            if route.queue is not None
            for command in self._keys.declaration(
                route.queue, route.exchange, route.routing_key if route.exchange else None
            )
        ]

    async def _declare(self, new: dict[_Name, Route]) -> None:
        if not new:
            return
        for reply in await self._link.calls(self._declarations(new)):
            if isinstance(reply, Exception):
                raise reply
        self._declared.update(new)


def _tags(messages: Sequence[Message]) -> list[str]:
    """Return a unique tag for each message."""
    digits = os.urandom(16 * len(messages)).hex()
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


async def _pack_all(messages: Sequence[Message]) -> list[bytes]:
    """Return the frame of each; raise ``EncodeError`` for the first that has none."""
    frames: list[bytes] = []
    for message, tag in zip(messages, _tags(messages), strict=True):
        frame = _pack_or_say(message, tag)
        if isinstance(frame, EncodeError):
            raise frame
        frames.append(frame)
        if len(frames) % _WITHOUT_PAUSE == 0:
            await asyncio.sleep(0)  # gives the event loop a turn
    return frames


def _pack_or_say(message: Message, tag: str) -> bytes | EncodeError:
    envelope, route = message
    try:
        return pack(envelope, delivery_tag=tag, route=route)
    except EncodeError as error:
        return EncodeError(f"{_name(message)}: {error}")


def _name(message: Message) -> str:
    """Return what an error calls this message."""
    headers = message[0].headers
    task, task_id = headers.get("task"), headers.get("id") or message[0].correlation_id
    return f"the message of {task}[{task_id}]" if task else f"the message {task_id}"


def _timed(route: Route) -> Route:
    """Return the route with a due time; the script that parks queues at once a message whose time has come."""
    return route if route.due is not None else msgspec.structs.replace(route, due=0.0)


def _pack_trips(lists: dict[str, list[tuple[int, bytes]]]) -> list[_Trip]:
    """Return the commands of each round trip: list, positions, frames; a trip is closed when it has enough bytes."""
    size = 0
    for in_list in lists.values():
        for _, frame in in_list:
            size += len(frame)
    if size <= TRIP_BYTES:  # nearly always
        return [
            [
                (key, [position for position, _ in in_list], [frame for _, frame in in_list])
                for key, in_list in lists.items()
            ]
        ]
    framed = [(key, position, frame) for key, in_list in lists.items() for position, frame in in_list]
    return [_by_list(trip) for trip in by_size(framed, lambda one: len(one[2]))]


def _by_list(framed: Sequence[tuple[str, int, bytes]]) -> _Trip:
    lists: dict[str, tuple[str, list[int], list[bytes]]] = {}
    for key, position, frame in framed:
        _, positions, frames = lists.setdefault(key, (key, [], []))
        positions.append(position)
        frames.append(frame)
    return list(lists.values())


def _fail(answers: Answers, positions: Sequence[int], error: BaseException) -> None:
    for position in positions:
        answers[position] = answers[position] or error
