"""Sends calls: makes the message of a call, publishes it, and returns the handle on its result."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from celeriac.canvas.budget import Budget
from celeriac.canvas.freeze import freeze
from celeriac.canvas.launch import FollowUp, Launch, Origin
from celeriac.canvas.nodes import Node, checked, has_chord, leaves
from celeriac.canvas.trail import trail
from celeriac.client.connections import Connections, ConnectionTable, RunBlocking
from celeriac.client.handles import handle_of
from celeriac.client.result import Result
from celeriac.client.result_store import ResultStore
from celeriac.client.revoking import revoke
from celeriac.context import CURRENT
from celeriac.contracts.backend import Backend, SelectiveBackend
from celeriac.contracts.transactions import Statement
from celeriac.errors import ArgumentError, ConfigError
from celeriac.routing import NO_OPTIONS, Link, Routes, SendOptions
from celeriac.servers.caller_connection import Caller
from celeriac.servers.ids import new_id
from celeriac.settings import Settings
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Call(msgspec.Struct, Generic[R_co], frozen=True, gc=False):
    """One call of one task, ready to be sent; made by ``Task.call``.

    :param convert: makes the return type of the decoded value.
    :param ignore_result: whether the result is dropped; ``None`` leaves it to the worker.
    """

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    options: SendOptions = NO_OPTIONS
    convert: Callable[[Any], R_co] | None = None
    ignore_result: bool | None = None


USUAL_ARGS = (list, tuple, type(None))
USUAL_KWARGS = (dict, type(None))
"""Types that are checked first: an ``isinstance`` with an abstract class takes as long as all the rest of a call."""


def check_call(name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> None:
    """Raise ``ConfigError`` for a bad task name, ``ArgumentError`` for arguments that are no list or no mapping."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"task name {name!r}: give a text that is not empty")
    if not isinstance(args, USUAL_ARGS) and (isinstance(args, str | bytes) or not isinstance(args, Sequence)):
        raise ArgumentError(f"{name}: args={args!r:.200}: give a list of the positional arguments")
    if not isinstance(kwargs, USUAL_KWARGS) and not isinstance(kwargs, Mapping):
        raise ArgumentError(f"{name}: kwargs={kwargs!r:.200}: give a mapping of names to arguments")


class Outbox:
    """Sends the calls and workflows of an app.

    :param defaults: returns the options of a task's calls where none are given.
    :param connect_to: makes the app use other URLs.
    """

    def __init__(
        self,
        settings: Settings,
        connections: ConnectionTable,
        run: RunBlocking,
        defaults: Callable[[str], SendOptions],
        connect_to: Callable[[str | None, str | None], None],
    ) -> None:
        self.connect_to = connect_to
        self.settings = settings
        self.routes = Routes(settings.routes)
        self._connections = connections
        self._run = run
        self._results = ResultStore(connections, run)
        self._defaults = defaults

    async def send(self, call: Call[R], caller: Caller | None = None) -> Result[R]:
        """Return when the broker has the message; raises as ``Publisher.publish`` does.

        :param caller: write it in this caller's transaction instead.
        """
        if caller is not None:
            return (await self.send_many([call], caller))[0]
        connections = self._connections.current()
        message = self._message(call, await _address(connections))
        await connections.publisher.publish(message, call.options)
        return self._sent(call, message)

    async def send_many(self, calls: Sequence[Call[R]], caller: Caller | None = None) -> list[Result[R]]:
        """Send all in a few round trips; raises as ``Publisher.publish_many`` does."""
        connections = self._connections.current()
        messages = await self._messages(calls, connections)
        if caller is None:
            await connections.publisher.publish_many(messages)
        else:
            await caller.execute(await statements(connections, connections.publisher.prepare_many(messages)))
        return [self._sent(call, message) for (message, _), call in zip(messages, calls, strict=True)]

    async def prepare(self, call: Call[Any]) -> tuple[Envelope, Route]:
        """Return the message of a call as the broker takes it. Raises ``EncodeError``; nothing is sent."""
        options = call.options
        follow_up = FollowUp(
            self._message(call, None),
            queue=options.queue,
            exchange=options.exchange,
            routing_key=options.routing_key,
            countdown=options.countdown,
            eta=options.eta,
            expires=options.expires,
            serializer=options.serializer,
            compression=options.compression,
        )
        publisher = self._connections.current().publisher
        (message,) = await publisher.prepare([follow_up], self._defaults, Budget())
        return message

    def delay(self, call: Call[R], caller: Caller | None = None) -> Result[R]:
        """Send and block until the broker has it."""
        return self._run(self.send(call)) if caller is None else self.delay_many([call], caller)[0]

    def delay_many(self, calls: Sequence[Call[R]], caller: Caller | None = None) -> list[Result[R]]:
        """Send all and block until the broker has them."""
        if caller is None:
            return self._run(self.send_many(calls))
        messages, written = self._run(self._planned(calls))
        caller.execute_here(written)
        return [self._sent(call, message) for (message, _), call in zip(messages, calls, strict=True)]

    async def send_workflow(self, node: Node[Any], caller: Caller | None = None) -> Any:
        """Send a workflow; return the result, or the group of results, that gives its value.

        Raises as ``Publisher.publish_many``, ``MalformedMessage`` for an empty chain, and ``ConfigError`` for an object
        that is no workflow, or for a chord that the result backend cannot count.
        """
        frozen = freeze(checked(node), new_id)
        connections = self._connections.current()
        launch = await self._launched(frozen, connections)
        if caller is not None:
            await caller.execute(await self._workflow_statements(launch, connections))
            return self._sent_workflow(frozen, launch)
        await open_chords(launch, connections)
        await connections.publisher.publish_workflow(launch.follow_ups, self._defaults)
        return self._sent_workflow(frozen, launch)

    def delay_workflow(self, node: Node[Any], caller: Caller | None = None) -> Any:
        """Send a workflow and block until the broker has it."""
        if caller is None:
            return self._run(self.send_workflow(node))
        frozen = freeze(checked(node), new_id)
        launch, written = self._run(self._planned_workflow(frozen))
        caller.execute_here(written)
        return self._sent_workflow(frozen, launch)

    def report(self, record: ResultRecord) -> None:
        """Store a state of a running call and block until it is kept."""
        self._run(self._store(record))

    async def cancel(self, ids: Sequence[str], roots: Sequence[str], *, terminate: bool, keep: float) -> None:
        """Revoke tasks; see ``revoking.revoke``."""
        await revoke(self._connections.current(), ids, roots=roots, terminate=terminate, keep=keep)

    def revoke(self, ids: Sequence[str], roots: Sequence[str], *, terminate: bool, keep: float) -> None:
        """Revoke tasks and block until that is stored."""
        self._run(self.cancel(ids, roots, terminate=terminate, keep=keep))

    def result(self, task_id: str) -> Result[Any]:
        """Return a handle on a result of which only the id is known."""
        return Result(task_id, self._results)

    async def _store(self, record: ResultRecord) -> None:
        backend = self._connections.current().backend
        await backend.store(backend.encode(record))

    async def _messages(
        self, calls: Sequence[Call[Any]], connections: Connections
    ) -> list[tuple[TaskMessage, SendOptions]]:
        for call in calls:
            if not isinstance(call, Call):
                raise ArgumentError(
                    f"{call!r:.200} is no call: make one with task.call(...) or app.call(...)"
                )
        reply_to = await _address(connections)
        return [(self._message(call, reply_to), call.options) for call in calls]

    async def _planned(
        self, calls: Sequence[Call[Any]]
    ) -> tuple[list[tuple[TaskMessage, SendOptions]], Sequence[Statement]]:
        """Return the messages of calls, and what writes them in a transaction."""
        connections = self._connections.current()
        messages = await self._messages(calls, connections)
        return messages, await statements(connections, connections.publisher.prepare_many(messages))

    async def _planned_workflow(self, frozen: Node[Any]) -> tuple[Launch, Sequence[Statement]]:
        connections = self._connections.current()
        launch = await self._launched(frozen, connections)
        return launch, await self._workflow_statements(launch, connections)

    async def _launched(self, frozen: Node[Any], connections: Connections) -> Launch:
        """Return the first messages of a frozen workflow. Raises ``EncodeError`` and ``ConfigError``."""
        _check_ids(frozen, connections.backend, ignored=self.settings.ignore_result)
        return await launched(frozen, connections, self._origin)

    async def _workflow_statements(self, launch: Launch, connections: Connections) -> Sequence[Statement]:
        prepared = connections.publisher.prepare_workflow(launch.follow_ups, self._defaults)
        return await statements(connections, prepared, launch)

    def _sent_workflow(self, frozen: Node[Any], launch: Launch) -> Any:
        left = trail(frozen)
        if (context := CURRENT.get()) is not None:
            context.children.append(left.as_tuple())
        result = handle_of(left, self._results)
        result.workflow = frozen
        result.root_id = launch.follow_ups[0].message.root_id if launch.follow_ups else None
        return result

    def _message(self, call: Call[Any], reply_to: str | None) -> TaskMessage:
        options = call.options
        task_id = options.task_id or new_id()
        if options.task_id is not None:
            self._check_id(task_id, call)
        parent_id, root_id = options.parent_id, options.root_id
        if (context := CURRENT.get()) is not None:
            parent_id = parent_id or context.id
            root_id = root_id or context.root_id or context.id
        return TaskMessage(
            id=task_id,
            task=call.task,
            args=list(call.args),
            kwargs=dict(call.kwargs) if call.kwargs else {},
            group=options.group_id,
            root_id=root_id or task_id,
            parent_id=parent_id,
            time_limit=options.time_limit,
            soft_time_limit=options.soft_time_limit,
            ignore_result=call.ignore_result,
            shadow=options.shadow,
            callbacks=_signatures(options.link),
            errbacks=_signatures(options.link_error),
            origin=f"{os.getpid()}@{HOST}",
            headers=dict(options.headers) if options.headers else {},
            correlation_id=task_id,
            reply_to=options.reply_to or reply_to,
            priority=options.priority or 0,
            protocol=options.protocol or self.settings.protocol,
        )

    def _check_id(self, task_id: str, call: Call[Any]) -> None:
        """Raise ``EncodeError`` for an id under which the result that is wanted cannot be kept."""
        ignores = self.settings.ignore_result if call.ignore_result is None else call.ignore_result
        backend = self._connections.current().backend
        if not ignores and isinstance(backend, SelectiveBackend):
            backend.check_id(task_id)

    def _origin(self, reply_to: str | None) -> Origin:
        context = CURRENT.get()
        return Origin(
            parent_id=None if context is None else context.id,
            root_id=None if context is None else context.root_id or context.id,
            reply_to=reply_to,
            source=f"{os.getpid()}@{HOST}",
            protocol=self.settings.protocol,
        )

    def _sent(self, call: Call[R], message: TaskMessage) -> Result[R]:
        if (context := CURRENT.get()) is not None:
            context.children.append([[message.id, None], None])
        ignored = bool(call.ignore_result)
        return Result(message.id, self._results, task=message.task, convert=call.convert, ignored=ignored)


def _check_ids(node: Node[Any], backend: Backend, *, ignored: bool) -> None:
    """Raise ``EncodeError`` for an id in a workflow under which the result that is wanted cannot be kept.

    :param ignored: whether results are dropped of tasks that do not say it.
    """
    if isinstance(backend, SelectiveBackend):
        for leaf in leaves(node):
            ignores = leaf.options.get("ignore_result")
            if leaf.id is not None and not (ignored if ignores is None else ignores):
                backend.check_id(leaf.id)


async def _address(connections: Connections) -> str | None:
    """Return the address for results, if the backend sends results as messages; else ``None``."""
    replies = connections.backend.replies
    return None if replies is None else await replies.address()


async def launched(
    frozen: Node[Any], connections: Connections, origin: Callable[[str | None], Origin]
) -> Launch:
    """Return the first messages of a frozen workflow, and its chords."""
    if has_chord(frozen) and connections.backend.chords is None:
        raise ConfigError(
            "this workflow collects the values of a group, which needs a result backend that can count them: "
            "give the app backend='redis://…', 'postgresql://…' or 'sqlite:///…'"
        )
    launch = Launch(origin(await _address(connections)))
    launch.add(frozen)
    return launch


async def open_chords(launch: Launch, connections: Connections) -> None:
    """Make the chords of a workflow known, before its messages are sent."""
    if launch.openings and connections.backend.chords is not None:
        await connections.backend.chords.open(launch.openings)


async def statements(
    connections: Connections, prepared: Sequence[tuple[Envelope, Route]], launch: Launch | None = None
) -> Sequence[Statement]:
    """Return what writes messages in a transaction of the caller's. Raises ``ConfigError`` where there is none."""
    transactions = connections.broker.transactions
    if transactions is None:
        raise ConfigError(
            "this broker is no database, so nothing can be sent in a transaction: send after the commit, with your "
            "library's on_commit, or use a broker in your database (postgresql://, sqlite:///)"
        )
    openings = launch.openings if launch is not None else ()
    if openings and connections.settlements is None:  # the results are elsewhere
        assert launch is not None
        await open_chords(launch, connections)
        openings = ()
    return await transactions.statements(prepared, openings)


HOST = socket.gethostname()


def _signatures(given: Link | Sequence[Link] | None) -> Sequence[dict[str, Any]]:
    if not given:
        return ()
    links = [given] if isinstance(given, Mapping | Node) else given
    return [link.to_dict() if isinstance(link, Node) else dict(link) for link in links]
