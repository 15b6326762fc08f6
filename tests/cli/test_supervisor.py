"""The supervisor with children that are no workers."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from celeriac.testing.steps import soon
from celeriac.worker.supervisor import Child, Supervisor

# The signal is held back before the child says that it has begun, so that none comes too early to be waited for.
ARRIVE = """
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}})
here = socket.socket(socket.AF_UNIX)
here.connect({path!r})
"""
WAIT = "signal.sigwait({{signal.SIGTERM}})\n"


PATIENCE = 60.0


class Meeting:
    """Where children say that they have begun."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrivals: asyncio.Queue[None] = asyncio.Queue()

    def child(self, name: str, code: int = 0, *, patient: bool = True) -> Child:
        """A child that says so, and ends with this code, when it is asked to or at once."""
        program = ARRIVE + (WAIT if patient else "") + "sys.exit({code})"
        return Child(name, [sys.executable, "-c", program.format(code=code, path=str(self.path))])

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals.put_nowait(None)
        await reader.read()
        writer.close()


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    place = Meeting(tmp_path / "here")
    async with await asyncio.start_unix_server(place.met, place.path):
        yield place


async def test_child_that_cannot_start_ends_them_all(meeting: Meeting):
    hopeless = Child("hopeless", [sys.executable, "-c", "raise SystemExit(2)"])
    assert await Supervisor([meeting.child("a"), hopeless], hopeless=[2]).run() == 2


async def test_first_signal_is_passed_on_once_and_all_end_well(meeting: Meeting):
    running = asyncio.create_task(Supervisor([meeting.child("a"), meeting.child("b")]).run())
    for _ in range(2):
        await meeting.arrivals.get()
    os.kill(os.getpid(), signal.SIGINT)
    assert await running == 0


async def test_child_that_ends_badly_is_told(meeting: Meeting):
    running = asyncio.create_task(Supervisor([meeting.child("a"), meeting.child("b", code=7)]).run())
    for _ in range(2):
        await meeting.arrivals.get()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 7


async def test_child_that_dies_is_started_again(meeting: Meeting):
    running = asyncio.create_task(Supervisor([meeting.child("dying", code=1, patient=False)]).run())
    for _ in range(2):
        await meeting.arrivals.get()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running in (0, 1)  # the signal finds it running, or waiting to be started again


async def test_exit_status_of_a_child_that_has_just_ended_is_kept(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
):
    """It is told to end when the loop has not heard yet that it did."""
    heard, waitpid = threading.Event(), os.waitpid

    def wait_late(pid: int, options: int) -> tuple[int, int]:
        if threading.current_thread() is not threading.main_thread():
            heard.wait(PATIENCE)
        return waitpid(pid, options)

    monkeypatch.setattr(os, "waitpid", wait_late)
    supervisor = Supervisor([meeting.child("dying", code=7, patient=False)])
    running = asyncio.create_task(supervisor.run())
    await meeting.arrivals.get()
    (child,) = supervisor._running
    await asyncio.to_thread(os.waitid, os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(supervisor._stopping.wait())
    heard.set()
    assert await running == 7


async def test_child_that_was_asked_to_end_by_others_stays_away(meeting: Meeting):
    assert await Supervisor([meeting.child("a", patient=False), meeting.child("b", patient=False)]).run() == 0
    assert meeting.arrivals.qsize() == 2
