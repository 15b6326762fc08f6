"""A copy of a process of several threads can write, whatever the other threads were at when it was made."""

import os
import select
import signal
import subprocess
import sys

WHILE_A_THREAD_WRITES = """
import logging, os, sys, threading, time
from celeriac.worker.forks import end_copy

logging.basicConfig(level=logging.INFO, stream={stream})
writing = threading.Thread(target={stream}.write, args=["x" * 1_000_000], daemon=True)
writing.start()
time.sleep(0.3)  # the pipe is full by now, and the thread holds the stream
child = os.fork()
if child == 0:
    end_copy({error})
until = time.monotonic() + 20
while time.monotonic() < until and writing.is_alive():
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        os.write(3, b"code %d" % os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.01)
os._exit(0)
"""
"""Tells the copy's code on descriptor 3; nothing where the copy has not ended."""


def said(stream: str, error: str) -> str:
    """Return what the program tells; its stream is read by nobody meanwhile."""
    program = WHILE_A_THREAD_WRITES.format(stream=f"sys.{stream}", error=error)
    command = ["sh", "-c", 'exec 3>&1; exec "$0" -c "$1" 1>&2', sys.executable, program]
    if stream == "stdout":
        command[2] = 'exec 3>&2; exec "$0" -c "$1"'
    env = {
        name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
    }  # it takes the locks away
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.Popen(command, env=env, start_new_session=True, **pipes)
    told = done.stderr if stream == "stdout" else done.stdout
    assert told is not None
    try:
        is_there, _, _ = select.select([told], [], [], 60)
        return os.read(told.fileno(), 100).decode() if is_there else ""
    finally:
        os.killpg(done.pid, signal.SIGKILL)  # a copy that hangs, too
        done.communicate()


def test_a_copy_ends_though_a_thread_was_writing():
    for stream in ("stdout", "stderr"):
        assert said(stream, "None") == "code 0"
        assert said(stream, "SystemExit(3)") == "code 3"
