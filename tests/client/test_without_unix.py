"""Clients work where the modules and names that only Unix has are missing, as on Windows."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MISSING = """
import functools, os, signal, socket, sys

class Missing:
    names = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "uvloop"}

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in Missing.names:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
# What asyncio itself needs on this system, whose own names then go.
socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
for module, names in (
    (os, ("register_at_fork", "fork", "O_CLOEXEC", "O_NOFOLLOW", "O_ASYNC", "geteuid", "getuid", "fchmod")),
    (signal, ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGIO", "SIGKILL", "SIGUSR1", "setitimer", "ITIMER_REAL")),
    (socket, ("AF_UNIX",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
"""

CLIENT = """
import asyncio, sys
from celeriac import Celeriac
import celeriac.cli.main

app = Celeriac("client", broker=sys.argv[1], backend=sys.argv[1], default_queue=sys.argv[2])

@app.task
def add(x: int, y: int) -> int:
    return x + y

blocking = add.delay(1, 2)
print(blocking.state)

async def send():
    result = await add.send(3, 4)
    others = await app.send_many([add.call(n, n) for n in range(3)])
    print((await result.info()).status, len(others))
    await app.close()

asyncio.run(send())
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_client_imports_and_sends(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, unique: Callable[[str], str]
):
    url = request.getfixturevalue("redis_url") if kind == "redis" else f"sqlite:///{tmp_path}/tasks.db"
    done = subprocess.run(
        [sys.executable, "-c", MISSING + CLIENT, url, unique("queue")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["PENDING", "PENDING", "3"], "")
