"""The tasks that a child process runs and does not survive, one a delivery mode; children import them from here."""

import os
import signal

from celeriac import Celeriac
from tests.faults.matrix.bodies import note

app = Celeriac("children", broker="memory://", backend="memory://")


@app.task(delivery="at_least_once")
def at_least_once(runs: str) -> None:
    note(runs)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(delivery="at_most_once")
def at_most_once(runs: str) -> None:
    note(runs)
    os.kill(os.getpid(), signal.SIGKILL)
