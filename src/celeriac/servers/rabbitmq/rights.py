"""Tries what clients and workers need of a RabbitMQ, and leaves nothing behind.

Rules: RabbitMQ looks at the rights of a user before it looks at anything else. So each right is tried with a call that
cannot succeed, or changes nothing: the refusal 403 says that the right is missing, any other answer that it is there.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from pamqp.base import Frame

from celeriac.errors import Finding
from celeriac.servers.rabbitmq.envelopes import DELAYED_EXCHANGE
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.content import Properties, write_properties
from celeriac.servers.rabbitmq.protocol.errors import ACCESS_REFUSED, NOT_FOUND, Refused
from celeriac.servers.rabbitmq.topology import Topology

Lack = tuple[str, str]
"""A name, and the right to it that is missing."""

_FIX = "give them with rabbitmqctl set_permissions"

_ALL = ("configure", "write", "read")


class RightsCheck:
    """Tries the rights of this user.

    :param ledger: name of the ledger.
    :param dead: name of the dead-letter list.
    """

    def __init__(self, link: Link, topology: Topology, ledger: str, dead: str) -> None:
        self._link = link
        self._rights = _Rights(link)
        self._topology = topology
        self._ledger = ledger
        self._dead = dead
        self._never = link.target.declare == "never"

    async def examine(self, queues: Sequence[str]) -> list[Finding]:
        """Return what does not work for want of a right. Raises ``Refused`` where no task can be sent or taken."""
        lacking = [part for queue in queues for part in await self._lacking_for_queue(queue)]
        lacking += await self._rights.lacking_for_sending()
        if lacking:
            raise Refused(
                f"{_listed(lacking)}; {_FIX}, or have another user declare the queue: then read is enough",
                ACCESS_REFUSED,
            )
        return [
            *_finding(
                await self._lacking_for_delays(), "messages for later wait in the worker, unacknowledged"
            ),
            *_finding(
                await self._lacking_for_ledger(),
                "nothing can be revoked, deliveries on classic queues are not counted, and workers cannot tell each "
                "other what they still work on",
            ),
            *_finding(
                await self._lacking_for_dead_letters(),
                "nothing can be set aside: such a message stays with its worker until that ends",
            ),
        ]

    async def _lacking_for_queue(self, queue: str) -> list[Lack]:
        if await self._topology.count(queue) is not None:
            return await self._rights.lacking(queue, ["read"])
        if self._never:
            raise Refused(f"there is no queue {queue!r}, and declare=never forbids to make it", NOT_FOUND)
        return await self._rights.lacking(queue, _ALL)

    async def _lacking_for_delays(self) -> list[Lack]:
        first, last = self._topology.delaying[0], self._topology.delaying[-1]
        lacking = await self._lacking_to_make(DELAYED_EXCHANGE)
        for name in (first, last):
            lacking += await self._lacking_to_make(name)
            lacking += await self._rights.lacking(name, ["write"])
        return lacking

    async def _lacking_for_ledger(self) -> list[Lack]:
        # The worker declares the exchange even where it is there already.
        rights = [right for right in _ALL if right != "configure" or not self._never]
        return [*await self._rights.lacking(self._ledger, rights), *await self._lacking_for_own_queue()]

    async def _lacking_for_own_queue(self) -> list[Lack]:
        """Make a queue as workers make it to follow the ledger, and delete it."""
        try:
            async with self._link.passing_channel() as channel:
                queue = (await channel.call(methods.declare_own_queue())).queue
                await channel.call(methods.delete_queue(queue))
        except Refused as error:
            if error.code != ACCESS_REFUSED:
                raise
            return [("amq.gen-...", "configure")]
        return await self._rights.lacking("amq.gen-celeriac-trial", ["write", "read"])

    async def _lacking_for_dead_letters(self) -> list[Lack]:
        return [*await self._lacking_to_make(self._dead), *await self._rights.lacking(self._dead, ["read"])]

    async def _lacking_to_make(self, name: str) -> list[Lack]:
        """Return what is missing to make a queue or an exchange of this name, if it is not there."""
        for look in (methods.look_for_exchange(name), methods.look_for_queue(name)):
            try:
                await self._rights.ask(look)
            except Refused as error:
                if error.code != NOT_FOUND:
                    raise
            else:
                return []
        return await self._rights.lacking(name, ["configure"])


async def examine_results(link: Link, queue: str, *, stored_there: bool) -> list[Finding]:
    """Return what does not work with results. Raises ``Refused`` where no result can leave.

    :param queue: a name as queues of results have it.
    :param stored_there: each result has such a queue, which the storing process makes; else the waiting one does.
    """
    rights = _Rights(link)
    lacking = await rights.lacking_for_sending()
    making = await rights.lacking(queue, ["configure"])
    if stored_there:
        lacking += making
    if lacking:
        raise Refused(f"{_listed(lacking)}, so no result can be stored; {_FIX}", ACCESS_REFUSED)
    reading = [*([] if stored_there else making), *await rights.lacking(queue, ["read"])]
    return _finding(reading, "this user can wait for no result")


class _Rights:
    """Asks which rights this user has."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def lacking(self, name: str, rights: Sequence[str]) -> list[Lack]:
        return [(name, right) for right in rights if not await self._may(right, name)]

    async def lacking_for_sending(self) -> list[Lack]:
        """Publish a message to a queue that nobody has, which RabbitMQ drops."""
        header = write_properties(Properties(), 0)
        try:
            await self._link.publish("", f"celeriac.trial.{uuid.uuid4()}", header, b"", mandatory=False)
        except Refused as error:
            if error.code != ACCESS_REFUSED:
                raise
            return [("amq.default", "write")]
        return []

    async def ask(self, method: Frame) -> None:
        async with self._link.passing_channel() as channel:
            await channel.call(method)

    async def _may(self, right: str, name: str) -> bool:
        try:
            await self.ask(_probe(right, name))
        except Refused as error:
            return error.code != ACCESS_REFUSED
        return True


def _probe(right: str, name: str) -> Frame:
    """Return a call that needs this right to this name, and does nothing."""
    match right:
        case "configure":
            return methods.declare_queue(name, {"x-expires": 0})  # no queue may expire at once
        case "write":
            return methods.unbind_queue(name, name, f"celeriac.trial.{uuid.uuid4()}")  # nobody bound it
        case _:
            return methods.consume(name, "trial", arguments={"x-priority": "none"})  # a priority is a number


def _listed(lacking: Sequence[Lack]) -> str:
    rights: dict[str, dict[str, None]] = {}
    for name, right in lacking:
        rights.setdefault(name, {})[right] = None
    return "this user lacks rights to " + ", ".join(
        f"{name!r} ({', '.join(missing)})" for name, missing in rights.items()
    )


def _finding(lacking: Sequence[Lack], cost: str) -> list[Finding]:
    return [Finding(f"{_listed(lacking)}: {cost}", _FIX)] if lacking else []
