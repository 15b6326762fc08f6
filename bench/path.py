"""Counts the files and functions that one warm message passes in a worker: ``python -m bench.path URL [RESULTS]``.

The URLs are of servers that several event loops can use: all but ``memory://``.

Not a timing: ``sys.setprofile`` notes every call in the thread of the worker's loop, from just before a message is sent
to an idle worker until the worker has settled it. The client that sends and waits has a thread and a loop of its own,
so nothing of it is noted. A worker has timers too (heartbeats, renewals, looks at its memory, connections to be
closed). They fall into few of the ``WINDOWS``, each of which has one message, so what counts is what was called in more
than half of them. With ``-v`` the functions are listed in the order of their first calls.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import celeriac
from celeriac import Celeriac
from celeriac.worker.attempt import Attempt
from celeriac.worker.listeners import Listener

PACKAGE = str(Path(celeriac.__file__).parent)
WARM, WINDOWS, PATIENCE = 20, 21, 10.0
COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
"""Parts of the function that they stand in; up to Python 3.11 each is called like one."""
Function = tuple[str, str]


class Trail:
    """What was called, once each, in the order of the first calls."""

    def __init__(self) -> None:
        self.functions: dict[Function, None] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name not in COMPREHENSIONS:
            self.functions.setdefault((code.co_filename[len(PACKAGE) + 1 :], code.co_qualname))


class End(Listener):
    """Tells when a message was settled."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    def ended(self, attempt: Attempt) -> None:
        self.came.set()


async def walk(url: str, results: str) -> list[Function]:
    """Return the file and name of every function that one message passes, in order."""
    app = Celeriac("path", broker=url, backend=results)
    end = End()
    app.listen(end)

    @app.task(name="path.noop")
    async def noop(x: int) -> int:
        return x

    call = noop.using(queue="path")
    async with app, app.worker(queues=["path"]) as worker:
        await worker.ready()
        trails = [await window(end, partial(call.delay, 0)) for _ in range(WARM + WINDOWS)]
    seen = Counter(function for trail in trails[WARM:] for function in trail.functions)
    return [function for function, times in seen.items() if times > WINDOWS / 2]


async def window(end: End, send: Callable[[], Any]) -> Trail:
    """Note what the worker calls for one message, which another thread sends."""
    trail = Trail()
    end.came.clear()
    sys.setprofile(trail)
    try:
        async with asyncio.timeout(PATIENCE):
            sending = asyncio.create_task(asyncio.to_thread(send))
            await end.came.wait()
    finally:
        sys.setprofile(None)
    result = await sending
    await asyncio.to_thread(result.get, timeout=PATIENCE)
    return trail


def main(arguments: list[str], say: Callable[[str], None] = print) -> None:
    """Print the counts, and the functions in order with ``-v``."""
    urls = [argument for argument in arguments if argument != "-v"]
    url = urls[0]
    functions = asyncio.run(walk(url, urls[1] if len(urls) > 1 else url))
    files = {file for file, _ in functions}
    say(f"{url}: {len(files)} files, {len(functions)} functions")
    if "-v" in arguments:
        for file, name in functions:
            say(f"  {file}: {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
