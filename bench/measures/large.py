"""Large payloads in the queue of a worker with many slots: its memory, and how long a script holds the server up."""

import json
from base64 import b64encode

from bench.ground import Ground
from bench.plan import Plan
from bench.rows import Row, at_most
from bench.workers import celeriac

COUNT, SIZE = 60, 10_000_000
"""Messages, and bytes of the one argument of each."""


def measure(plan: Plan) -> list[Row]:
    """Tasks that get 10 MB of text and return its length, no more of them than there are slots."""
    with Ground(plan.molds) as ground:
        runs = plan.in_turns("large payloads", {"celeriac": lambda: consume(ground)})["celeriac"]
    peaks, longest = zip(*runs, strict=True)
    name = f"{COUNT} messages of {SIZE // 1_000_000} MB at -c 100"
    return [
        Row(f"{name}: peak memory", "MB", peaks, goal=at_most(400), less_is_better=True),
        Row(f"{name}: longest command", "s", longest, goal=at_most(0.25), less_is_better=True),
    ]


def consume(ground: Ground) -> tuple[float, float]:
    """Fill the queue, run the worker to the end of it; return its peak memory, and the server's longest command."""
    ground.clear()
    ids, molds = ground.cast("bench.tasks.length", ["text"], COUNT)
    for mold in molds:
        ground.push([enlarged(mold)])
    ground.note_slow_commands()
    with celeriac("-c", "100").running(ground.env) as worker:
        ground.wait_for(worker, COUNT)
        ground.check(worker, ids, SIZE)
        return worker.peak_memory(), ground.slowest_command()


def enlarged(mold: str) -> str:
    """Return the message with an argument of the full size."""
    frame = json.loads(mold)
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    frame["body"] = b64encode(json.dumps([["x" * SIZE], {}, nothing]).encode()).decode()
    return json.dumps(frame)
