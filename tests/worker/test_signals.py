"""Signals to processes that a worker's process forks."""

import subprocess
import sys

PROGRAM = """
import os
import signal
import time
from collections import Counter

from celeriac.worker.signals import Inheritance

signal.signal(signal.SIGINT, signal.SIG_IGN)  # in the place of the worker's own handler
inheritance = Inheritance({signal.SIGINT: signal.default_int_handler})
codes = Counter()
for number in range(300):
    try:
        child = os.fork()
        if child == 0:
            signal.setitimer(signal.ITIMER_REAL, 1.0)
            while True:  # a sleep could begin between the signal and its handler, and last
                pass
    except KeyboardInterrupt:
        os._exit(1)
    until = time.perf_counter() + number * 2e-6
    while time.perf_counter() < until:
        pass
    os.kill(child, signal.SIGINT)
    codes[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] += 1
print(*sorted(codes.keys() - {1, -signal.SIGINT}))
"""


def test_an_interrupt_ends_a_forked_process_whenever_it_comes():
    """It may come while the child gets its handlers, where Python drops what a handler raises."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
