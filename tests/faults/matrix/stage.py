"""Plays cases of the crash matrix, all at once: most of the time a case waits for a lease to end."""

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from celeriac import Celeriac, RemoteError, Result, ResultTimeout
from celeriac.settings import Settings
from celeriac.testing.faults import Faults, FaultyBackend, FaultyBroker
from celeriac.worker.worker import Worker
from tests.faults.matrix import child_bodies
from tests.faults.matrix.bodies import CROWDED, count, hold_file, leave_file, make_app
from tests.faults.matrix.cases import Case, How, Outcome
from tests.faults.matrix.places import (
    InFile,
    InMemory,
    InPostgres,
    InRabbit,
    InRedis,
    InRedisFarAway,
    Outage,
    Place,
)
from tests.faults.opened import open_both
from tests.servers import LoggedProcess, PostgresServer, RabbitServer, RedisServer

ROOT = Path(__file__).resolve().parents[3]
PLAYTIME, PATIENCE, SILENCE = 400.0, 300.0, 4.0
"""Seconds for a case, for what must come, and for what must not: longer than a lease and the search for lapsed ones."""

FEW = 8
"""Cases at a time that one RabbitMQ, or PostgreSQL, has room for."""

LEASE, LONG_LEASE = 2.0, 30.0
"""Seconds: what the dead held comes back soon, the living have time in a crowd; a broker's absence ends no lease."""

OUTLASTED = 2.3
"""Leases for which a worker that lives says nothing itself."""

APART: Sequence[How] = (
    "worker killed",
    "worker suspended",
    "interpreter held",
    "machine vanished",
    "restarted while held",
)
"""What takes a worker in a process of its own."""


@dataclass
class Scene:
    """One case, its place, and where its bodies leave their lines."""

    case: Case
    place: Place
    folder: Path

    @property
    def runs(self) -> str:
        """The file of the bodies' lines."""
        return str(self.folder / "runs")

    def app(self, *, lease: float = LONG_LEASE) -> Celeriac:
        """The case's app, as the caller and a healthy worker have it."""
        return make_app(self.place.url, self.place.results, self.case.mode, lease)

    async def send(self, app: Celeriac) -> Result[object]:
        """Send the case's task."""
        return await app.send_task(self.case.ending.body, [self.runs])

    async def heard(self, result: Result[object]) -> str:
        """What the caller gets."""
        silent = self.case.expected.caller == "nothing"
        try:
            return str(await result.wait(SILENCE if silent else PATIENCE))
        except ResultTimeout:
            return "nothing"
        except RemoteError as error:
            return error.type_name
        except Exception as error:
            return type(error).__name__

    @property
    def far_place(self) -> tuple[str, str]:
        """Where the workers that something happens to find broker and results."""
        place = self.place
        return (
            (place.far_url, place.far_url)
            if isinstance(place, InRedisFarAway)
            else (place.url, place.results)
        )

    def give_leave(self) -> None:
        """Let a body return that waits for that."""
        Path(leave_file(self.runs)).touch()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """For the length of the block, the body that does so holds its interpreter."""
        with Path(hold_file(self.runs)).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    async def has_begun(self) -> None:
        """Return when the body runs for the first time."""
        async with asyncio.timeout(PATIENCE):
            while not count(self.runs):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def has_run(self) -> None:
        """Return when the body has run as often as it should: the caller may know the result of the first run."""
        async with asyncio.timeout(PATIENCE):
            while count(self.runs) < self.case.expected.runs:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def nothing_to_do(self, app: Celeriac, worker: Worker) -> None:
        """Return when no message is left but dead ones: the caller may know the result before its message is gone."""
        async with asyncio.timeout(PATIENCE):
            # Nobody is told when a message is removed.
            while await self._has_messages(app) or (worker._consumer and worker._consumer.attempts):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def nothing_comes_back(self, app: Celeriac) -> None:
        """Return when a worker that stopped left nothing but dead messages.

        RabbitMQ does not count what a worker holds or what moves from one queue to another: `nothing_to_do` may
        look at such a moment, and the message waits again when the worker has stopped.
        """
        async with asyncio.timeout(PATIENCE):
            while await self._has_messages(app):
                async with app.worker() as worker:
                    await self.nothing_to_do(app, worker)

    async def _has_messages(self, app: Celeriac) -> bool:
        left = await self.place.left(app)
        return any(number for where, number in left.items() if where != "dead")

    async def outcome(self, app: Celeriac, caller: str) -> Outcome:
        """What there is to see when the workers have stopped."""
        left = await self.place.left(app)
        text = ", ".join(f"{number} {where}" for where, number in left.items() if number)
        return Outcome(caller, count(self.runs), text or "nothing")


async def begun(result: Result[object]) -> None:
    """Return when the body has said that it waits."""
    async for record in result.watch():
        if record.status == "WAITING":
            return


class Victims:
    """Worker processes that something happens to: most kill themselves.

    :param scenes: for each of them one, as often as it says.
    """

    def __init__(self, scenes: Sequence[Scene], folder: Path) -> None:
        self._scenes = scenes
        self._folder = folder
        self._sent = asyncio.Barrier(max(1, len(scenes)))
        self._process: LoggedProcess | None = None

    async def died(self, scene: Scene) -> None:
        """Return when the workers of this scene are dead."""
        process = await self._started()
        line = await asyncio.to_thread(process.wait_for, f"{scene.case}: ", timeout=PATIENCE)
        assert line == f"{scene.case}: {-signal.SIGKILL}"

    async def pid(self, scene: Scene) -> int:
        """Return the process id of this scene's worker."""
        process, head = await self._started(), f"{scene.case} is "
        async with asyncio.timeout(PATIENCE):
            # The threads that can wait for a line are taken by those who wait for deaths.
            while not (found := [line for line in process.lines if line.startswith(head)]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return int(found[0].removeprefix(head))

    async def _started(self) -> LoggedProcess:
        """Return the process; it is started when every scene has asked."""
        if await self._sent.wait() == 0:
            self._start()
        await self._sent.wait()
        assert self._process is not None
        return self._process

    def close(self) -> None:
        """End the process if it has not ended."""
        if self._process is not None:
            self._process.kill()

    def _start(self) -> None:
        jobs = self._folder / "jobs.json"
        jobs.write_text(json.dumps([self._job(scene) for scene in self._scenes]))
        command = [sys.executable, "-m", "tests.faults.matrix.victims", str(jobs)]
        self._process = LoggedProcess(command, cwd=ROOT)

    def _job(self, scene: Scene) -> Mapping[str, object]:
        case = scene.case
        deaths = case.ending.kills if case.mode == "at_least_once" else 1
        return {
            "name": str(case),
            "url": scene.far_place[0],
            "results": scene.far_place[1],
            "mode": case.mode,
            "lease": LEASE,
            "at": case.ending.at,
            "deaths": deaths,
        }


class Stage:
    """Where the cases are played.

    :param shared: a Redis that nothing happens to.
    :param doomed: a durable Redis that dies and comes back.
    :param restarted: the same, while workers are in trouble of their own.
    :param rabbit: a RabbitMQ that nothing happens to, where there are cases for it.
    :param postgres: the same of PostgreSQL.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        folder: Path,
        shared: RedisServer,
        doomed: RedisServer,
        restarted: RedisServer,
        rabbit: RabbitServer | None,
        postgres: PostgresServer | None,
    ) -> None:
        self._outage = Outage(doomed, _count(cases, "broker gone"))
        self._restart = Outage(restarted, _count(cases, "restarted while held"))
        self._shared = shared
        self._doomed = doomed
        self._restarted = restarted
        self._rabbit = rabbit
        self._postgres = postgres
        self._scenes = [self._scene(case, folder / str(number)) for number, case in enumerate(cases)]
        killed = [scene for scene in self._scenes if scene.case.ending.how in APART]
        self._victims = Victims(killed, folder)
        self._children = asyncio.Lock()
        self._few = {broker: asyncio.Semaphore(FEW) for broker in ("rabbitmq", "postgres")}
        self._plays: Mapping[How, Callable[[Scene], Awaitable[Outcome]]] = {
            "in one worker": self._in_one_worker,
            "worker stopped": self._worker_stopped,
            "revoked": self._revoked,
            "worker killed": self._worker_killed,
            "child killed": self._child_killed,
            "broker gone": self._broker_gone,
            "worker suspended": self._worker_suspended,
            "interpreter held": self._interpreter_held,
            "restarted while held": self._interpreter_held,
            "machine vanished": self._machine_vanished,
        }

    async def play(self) -> Mapping[str, Outcome | BaseException]:
        """Play every case; return what was seen, or what went wrong, by the case's name."""
        await asyncio.to_thread(self._make_vhosts)
        plays = [self._play(scene) for scene in self._scenes]
        try:
            seen = await asyncio.gather(*plays, return_exceptions=True)
        finally:
            self._victims.close()
        return {str(scene.case): outcome for scene, outcome in zip(self._scenes, seen, strict=True)}

    async def _play(self, scene: Scene) -> Outcome:
        async with self._room_for(scene), asyncio.timeout(PLAYTIME), scene.place.in_reach():
            return await self._plays[scene.case.ending.how](scene)

    def _room_for(self, scene: Scene) -> AbstractAsyncContextManager[object]:
        """RabbitMQ and PostgreSQL have little room for many; but those that are killed together must all be there."""
        how = scene.case.ending.how
        if how == "child killed":
            return self._children
        few = self._few.get(scene.case.broker) if how not in APART else None
        return few or nullcontext()

    async def _in_one_worker(self, scene: Scene) -> Outcome:
        async with scene.app() as app:
            async with app.worker() as worker:
                caller = await scene.heard(await scene.send(app))
                await scene.nothing_to_do(app, worker)
            return await scene.outcome(app, caller)

    async def _worker_stopped(self, scene: Scene) -> Outcome:
        async with scene.app() as app:
            async with app.worker(grace=0):
                result = await scene.send(app)
                await begun(result)
            async with app.worker():
                caller = await scene.heard(result)
            return await scene.outcome(app, caller)

    async def _revoked(self, scene: Scene) -> Outcome:
        async with scene.app() as app:
            async with app.worker():
                result = await scene.send(app)
                await begun(result)
                await app.connections().revocations.add([result.id])
                caller = await scene.heard(result)
            return await scene.outcome(app, caller)

    async def _worker_killed(self, scene: Scene) -> Outcome:
        async with scene.app(lease=LEASE) as app:
            result = await scene.send(app)
            await self._victims.died(scene)
            return await self._after(scene, app, result)

    async def _worker_suspended(self, scene: Scene) -> Outcome:
        async with scene.app(lease=LEASE) as app:
            result = await scene.send(app)
            worker = await self._victims.pid(scene)
            await scene.has_begun()
            os.kill(worker, signal.SIGSTOP)
            try:
                async with app.worker():
                    await asyncio.sleep(OUTLASTED * LEASE)
            finally:
                os.kill(worker, signal.SIGCONT)
            scene.give_leave()
            return await self._after(scene, app, result)

    async def _interpreter_held(self, scene: Scene) -> Outcome:
        async with scene.app(lease=LEASE) as app:
            with scene.hold():
                result = await scene.send(app)
                await self._victims.pid(scene)
                await scene.has_begun()
                async with app.worker():
                    if scene.case.ending.how == "restarted while held":
                        async with scene.place.absence():
                            pass
                    await asyncio.sleep(OUTLASTED * LEASE)
            return await self._after(scene, app, result)

    async def _machine_vanished(self, scene: Scene) -> Outcome:
        assert isinstance(scene.place, InRedisFarAway)
        async with scene.app(lease=LEASE) as app:
            result = await scene.send(app)
            worker = await self._victims.pid(scene)
            await scene.has_begun()
            scene.place.fall_silent()
            os.kill(worker, signal.SIGKILL)
            return await self._after(scene, app, result)

    async def _after(self, scene: Scene, app: Celeriac, result: Result[object]) -> Outcome:
        """What is to be seen when a healthy worker has had time to take over."""
        async with app.worker() as worker:
            caller = await scene.heard(result)
            await scene.nothing_to_do(app, worker)
        await scene.nothing_comes_back(app)
        return await scene.outcome(app, caller)

    async def _child_killed(self, scene: Scene) -> Outcome:
        async with child_bodies.app as app:
            app.connect_to(scene.place.url, scene.place.results)
            async with app.worker(pool="processes", concurrency=1):
                caller = await scene.heard(
                    await app.send_task(f"{child_bodies.__name__}.{scene.case.mode}", [scene.runs])
                )
            return await scene.outcome(app, caller)

    async def _broker_gone(self, scene: Scene) -> Outcome:
        async with self._with_faults(scene) as (app, faults):
            result = await scene.send(app)
            assert scene.case.ending.at is not None
            point, when = scene.case.ending.at
            pause = faults.pause(point, when)
            if (point, when) != ("take", "after"):
                # After it the answer is lost; before it even a file that is only locked looks gone.
                faults.fail(point, when)
            async with app.worker(concurrency=1) as worker:
                caller = asyncio.create_task(scene.heard(result))
                await pause.reached.wait()
                async with scene.place.absence():
                    pause.resume()
                await caller
                await scene.has_run()
                await scene.nothing_to_do(app, worker)
            await scene.nothing_comes_back(app)
            return await scene.outcome(app, caller.result())

    @asynccontextmanager
    async def _with_faults(self, scene: Scene) -> AsyncIterator[tuple[Celeriac, Faults]]:
        faults, settings = Faults(), Settings(lease=LONG_LEASE, publish_timeout=CROWDED)
        broker, backend = open_both(scene.place.url, scene.place.results, settings)
        try:
            faulty = FaultyBroker(broker, faults), FaultyBackend(backend, faults)
            async with make_app(*faulty, scene.case.mode, LONG_LEASE) as app:
                yield app, faults
        finally:
            await broker.close()
            await backend.close()

    def _scene(self, case: Case, folder: Path) -> Scene:
        folder.mkdir()
        return Scene(case, self._place(case, folder), folder)

    def _place(self, case: Case, folder: Path) -> Place:
        if case.broker == "memory":
            return InMemory()
        if case.broker == "sqlite":
            return InFile(folder / "tasks.db")
        if case.broker == "postgres":
            assert self._postgres is not None
            return InPostgres(self._postgres, f"matrix_{folder.name}")
        if case.broker == "rabbitmq":
            assert self._rabbit is not None
            results = f"{self._shared.url()}?global_keyprefix={folder.name}:"
            return InRabbit(self._rabbit, f"matrix-{folder.name}", results)
        prefix, how = f"{folder.name}:", case.ending.how
        if how == "machine vanished":
            return InRedisFarAway(self._shared, prefix, self._outage)
        if how == "restarted while held":
            return InRedis(self._restarted, prefix, self._restart)
        return InRedis(self._doomed if how == "broker gone" else self._shared, prefix, self._outage)

    def _make_vhosts(self) -> None:
        if self._rabbit is not None:
            self._rabbit.add_vhosts(
                [scene.place.vhost for scene in self._scenes if isinstance(scene.place, InRabbit)]
            )


def _count(cases: Sequence[Case], how: How) -> int:
    """How many cases on Redis end so."""
    return sum(case.ending.how == how and case.broker == "redis" for case in cases)
