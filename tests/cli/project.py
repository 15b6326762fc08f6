"""A user's directory with one module of tasks, and the command line run in it."""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from celeriac import Celeriac
from celeriac.cli.main import celeriac
from celeriac.wire.envelope import Envelope, Route
from tests.servers import LoggedProcess

TASKS = """
import asyncio
import time
from celeriac import Celeriac, Context

app = Celeriac("shop")


@app.task(name="shop.add")
async def add(x: int, y: int) -> int:
    return x + y


@app.task(name="shop.greet")
def greet(name: str, *, lang: str = "en") -> dict:
    return {"hello": name, "lang": lang}


@app.task(name="shop.boom")
def boom() -> None:
    raise ValueError("no such thing")


@app.task(name="shop.sleep")
async def sleep(ctx: Context, seconds: float) -> str:
    ctx.logger.info("sleeps")
    await asyncio.sleep(seconds)
    return "slept"


@app.task(name="shop.climb")
async def climb(ctx: Context, steps: int) -> str:
    for step in range(1, steps + 1):
        ctx.progress(step, steps, f"step {step}")
        await asyncio.sleep(0.1)
    return "up"
"""

VARIABLES = ("CELERIAC_BROKER", "CELERY_BROKER_URL", "CELERIAC_BACKEND", "CELERY_RESULT_BACKEND")


@dataclass
class Project:
    """A directory, the module in it, and what the environment says."""

    directory: Path
    module: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The file of the embedded default."""
        return self.directory / "shop.db"

    @property
    def url(self) -> str:
        """Its URL."""
        return f"sqlite:///{self.file}"

    def write(self, text: str, module: str | None = None) -> str:
        """Write a module; return its name."""
        name = module or self.module
        (self.directory / f"{name}.py").write_text(text)
        return name

    def run(self, *arguments: str) -> Result:
        """Run a command in this process, which must be in the directory."""
        return CliRunner(env=dict(self.env)).invoke(celeriac, arguments)

    def start(self, *arguments: str) -> LoggedProcess:
        """Start a command in a process of its own."""
        own = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        command = [sys.executable, "-m", "celeriac", *arguments]
        return LoggedProcess(command, env={**own, **self.env}, cwd=self.directory)

    @contextmanager
    def worker(self, *options: str) -> Iterator[LoggedProcess]:
        """A worker of the module that holds its queues; killed at the end if it still runs."""
        process = self.start("worker", "-A", self.module, *options)
        try:
            process.wait_for(" ready")
            yield process
        finally:
            if process.running:
                process.kill()

    def bury(
        self, *tasks: str, reason: str = "a reason", queue: str = "celery", url: str | None = None
    ) -> None:
        """Set messages aside, as a worker would."""
        calls: list[tuple[str, dict[str, Any]]] = [(task, {}) for task in tasks]
        asyncio.run(self.bury_calls(calls, reason, queue, url))

    async def bury_calls(
        self,
        calls: Sequence[tuple[str, dict[str, Any]]],
        reason: str = "a reason",
        queue: str = "celery",
        url: str | None = None,
    ) -> None:
        """Do so with calls that have options."""
        async with Celeriac("burying", url or self.url) as app:
            broker = app.connections().broker
            for task, options in calls:
                await app.send_task(task, [1], queue=queue, **options)
            async with broker.subscribe([queue]) as subscription:
                for _ in calls:
                    (delivery,) = await subscription.take(1)
                    await delivery.receipt.bury(reason)

    def publish(self, body: bytes, queue: str = "celery") -> None:
        """Put bytes into a queue that are no task."""

        async def publish() -> None:
            async with Celeriac("other", self.url) as app:
                await app.connections().broker.publish(
                    Envelope(body=body, content_type="application/json"), Route(queue, queue=queue)
                )

        asyncio.run(publish())
