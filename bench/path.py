"""Counts the files and functions that one warm message passes in a worker: ``python -m bench.path URL [RESULTS]``.

No timing, not a timing: ``sys.setprofile`` notes every call between the moment that a message is published and the
moment that its result is there, in a worker that has run others before.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import celeriac
from celeriac import Celeriac

PACKAGE = str(Path(celeriac.__file__).parent)
CLIENT = (f"{PACKAGE}/client/", f"{PACKAGE}/arguments/")


class Trail:
    """What was called, once each."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if (
            event == "call"
            and code.co_filename.startswith(PACKAGE)
            and not code.co_filename.startswith(CLIENT)
        ):
            self.functions.add((code.co_filename[len(PACKAGE) + 1 :], code.co_qualname))


async def walk(url: str, results: str) -> set[tuple[str, str]]:
    """Return the file and name of every function that one message passes."""
    app = Celeriac("path", broker=url, backend=results)
    done = asyncio.Event()

    @app.task(name="path.noop")
    async def noop(x: int) -> int:
        return x

    path = Trail()
    async with app, app.worker(queues=["path"]) as worker:
        await worker.ready()
        for n in range(20):
            await (await noop.using(queue="path").send(n)).wait(timeout=10)
        result = await noop.using(queue="path").send(0)
        sys.setprofile(path)
        done.clear()
        await asyncio.sleep(0.3)
        sys.setprofile(None)
        await result.wait(timeout=10)
    return path.functions


def main(arguments: list[str], say: Callable[[str], None] = print) -> None:
    """Print the counts, and the files in order with ``-v``."""
    urls = [argument for argument in arguments if argument != "-v"]
    url = urls[0]
    functions = asyncio.run(walk(url, urls[1] if len(urls) > 1 else url))
    files = sorted({file for file, _ in functions})
    say(f"{url}: {len(files)} files, {len(functions)} functions")
    if "-v" in arguments:
        for file in files:
            say(f"  {file}: {', '.join(sorted(name for place, name in functions if place == file))}")


if __name__ == "__main__":
    main(sys.argv[1:])
