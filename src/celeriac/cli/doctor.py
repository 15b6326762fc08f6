"""``celeriac doctor``: what would be connected to, whether it works, what to fix."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import msgspec

from celeriac.cli.alive import worker_checks
from celeriac.cli.check import Check
from celeriac.cli.console import say, say_lines, styled
from celeriac.cli.exits import Exit
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load_or_default
from celeriac.cli.places import absolute_file, backend_place, broker_place
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source, typed
from celeriac.client.app import App
from celeriac.client.environment import BACKEND_VARIABLES, BROKER_VARIABLES
from celeriac.client.task import Task
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.errors import (
    BackendUnavailable,
    BrokerError,
    BrokerUnavailable,
    CeleriacError,
    ConfigError,
)
from celeriac.servers.url_parts import scheme_of
from celeriac.wire.preview import counted

EXTRAS = {
    "hiredis": "redis",
    "pamqp": "amqp",
    "uvloop": "uvloop",
    "msgpack": "msgpack",
    "PyYAML": "yaml",
}
SLOW = 0.05
"""Seconds of a round trip from which on it is worth a word."""


@click.command("doctor", short_help="Say what would be connected to, and what to fix.")
@click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
@takes_source
def doctor(source: Source, as_objects: bool) -> int:
    """Say what would be connected to, whether it works, which workers answer, and what to fix.

    Ends with 1 when something does not work.
    """
    checks = [_software(), _extras()]
    try:
        app = load_or_default(source)
    except ConfigError as error:
        checks.append(Check("fail", "app", str(error)))
    else:
        checks += _preflight(source, app)
        checks += run_with(app, _examine(source, app))
    checks = [msgspec.structs.replace(check, fix=typed(check.fix)) for check in checks]
    _show(checks, as_objects=as_objects)
    return Exit.FAILED if any(check.level == "fail" for check in checks) else Exit.OK


def _software() -> Check:
    python = f"Python {platform.python_version()} on {platform.system()}"
    return Check("ok", "software", f"celeriac {version('celeriac')}, {python}")


def _extras() -> Check:
    installed, missing = [], set()
    for package, extra in EXTRAS.items():
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.add(extra)
    text = ", ".join(installed) or "none installed"
    if missing:
        text += f"; not installed: pip install 'celeriac[{','.join(sorted(missing))}]'"
    return Check("ok", "extras", text)


def _preflight(source: Source, app: App) -> list[Check]:
    """Return what a worker of the app would say, or why it would not start."""
    refusal = []
    try:
        app.require_runnable()
    except ConfigError as error:
        *reasons, last = str(error).splitlines()
        refusal = [Check("fail", "app", reason) for reason in reasons]
        refusal.append(
            Check("fail", "app", last, "a worker of this app does not start before that is mended")
        )
    return [*refusal, _app(source, app), *(Check("warn", "app", remark) for remark in app.remarks)]


def _app(source: Source, app: App) -> Check:
    if source.target is None:
        return Check("ok", "app", "none given (-A module): only the connections are looked at")
    if not app.tasks:
        return Check(
            "warn",
            "app",
            f"{app.name} has no tasks",
            "import the modules that define them in the app's module",
        )
    if "pickle" in app.settings.accept_content:
        fix = "take pickle out of accept_content"
        return Check("warn", "app", f"{app.name} reads pickle: whoever can send a message can run code", fix)
    return Check("ok", "app", f"{app.name}, {counted(len(app.tasks), 'task')}")


async def _examine(source: Source, app: App) -> list[Check]:
    broker_from = _origin(app.broker_url, source.broker, BROKER_VARIABLES, source)
    backend_from = _origin(app.backend_url, source.backend, BACKEND_VARIABLES, source)
    checks = [
        *[check async for check in _broker(app, broker_from)],
        *[check async for check in _backend(app, backend_from)],
    ]
    with suppress(CeleriacError):  # said already
        await app.close()
    return checks


async def _broker(app: App, origin: str) -> AsyncIterator[Check]:
    check = await _reach(
        "broker", app.broker_url, broker_place(app), origin, lambda: app.connections().broker
    )
    yield check
    if check.level == "fail" or _missing_file(app.broker_url):
        return
    if scheme_of(app.broker_url) == "memory":
        yield Check(
            "warn", "broker", "memory:// reaches only the process that it is in", "use sqlite:///file.db"
        )
    broker = app.connections().broker
    try:
        for finding in await broker.examine([app.settings.default_queue]):
            yield Check("warn", "broker", finding.text, finding.fix)
        yield await _queues(app, broker)
        if scheme_of(app.broker_url) != "memory":
            for check in await worker_checks(app, broker):
                yield check
        dead = await broker.dead.count()
    except CeleriacError as error:
        yield Check("fail", "broker", str(error), _advice(error))
        return
    yield (
        Check("warn", "dead", f"{dead} set aside", "celeriac dead") if dead else Check("ok", "dead", "none")
    )


async def _queues(app: App, broker: Broker) -> Check:
    """Return how many messages wait; in the app's queues alone where this user may not list them: none needs to."""
    own = _own_queues(app)
    try:
        names, unlisted = list(dict.fromkeys([*await broker.queues(), *own])), ""
    except BrokerUnavailable:
        raise
    except BrokerError as error:
        names = own
        unlisted = f"; others cannot be listed, which only the commands queues and doctor do: {error}"
    try:
        depths = [f"{name} {await broker.depth(name)}" for name in names]
    except BrokerUnavailable:
        raise
    except BrokerError as error:
        return Check("ok", "queues", f"cannot be looked into, which no worker does: {error}")
    return Check("ok", "queues", ", ".join(depths) + unlisted)


def _own_queues(app: App) -> list[str]:
    """Return the queues that the app's workers take from, and those that its tasks are sent to."""
    sent_to = [task.defaults.queue for task in app.tasks.values() if isinstance(task, Task)]
    return list(dict.fromkeys([*app.queues, *(queue for queue in sent_to if queue)]))


async def _backend(app: App, origin: str) -> AsyncIterator[Check]:
    if app.backend_url == "disabled://":
        fix = "give the app a backend=, or set CELERIAC_BACKEND, if anybody wants results"
        yield Check("warn", "backend", f"none ({origin}): results are not kept", fix)
        return
    check = await _reach(
        "backend", app.backend_url, backend_place(app), origin, lambda: app.connections().backend
    )
    yield check
    if check.level == "fail" or _missing_file(app.backend_url):
        return
    try:
        for finding in await app.connections().backend.examine():
            yield Check("warn", "backend", finding.text, finding.fix)
    except CeleriacError as error:
        yield Check("fail", "backend", str(error), _advice(error))


async def _reach(
    about: str, url: str, place: str, origin: str, open_it: Callable[[], Broker | Backend]
) -> Check:
    where = f"{place} ({origin})"
    if (path := _missing_file(url)) is not None:
        return _new_file(about, where, path)
    try:
        opened = open_it()
        await opened.ping()
        begun = time.perf_counter()
        answer = await opened.ping()
    except CeleriacError as error:
        return Check("fail", about, f"{where}: {error}", _advice(error))
    seconds = time.perf_counter() - begun
    text = f"{where}: {answer}, answers in {seconds * 1000:.1f} ms"
    return Check("warn", about, text, "look at the way there") if seconds > SLOW else Check("ok", about, text)


def _missing_file(url: str) -> Path | None:
    path = absolute_file(url)
    return None if path is None or path.exists() else path


def _new_file(about: str, where: str, path: Path) -> Check:
    folder = path.absolute().parent
    if folder.is_dir() and os.access(folder, os.W_OK):
        return Check("ok", about, f"{where}: no such file yet; it is made at first use")
    return Check(
        "fail", about, f"{where}: cannot be made in {folder}", "make that directory, or let it be written to"
    )


def _origin(url: str, option: str | None, variables: Sequence[str], source: Source) -> str:
    if option is not None:
        return "from the command line"
    variable = next((name for name in variables if url and os.environ.get(name, "").strip() == url), None)
    if variable is not None:
        return f"from {variable}"
    return "from the app" if source.target is not None else "by default"


def _advice(error: CeleriacError) -> str:
    if isinstance(error, BrokerUnavailable | BackendUnavailable):
        return "does it run, are host and port right, does a firewall stand between?"
    return ""


def _show(checks: Sequence[Check], *, as_objects: bool) -> None:
    if as_objects:
        say_lines(as_json(checks))
        return
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in checks:
        level = styled(f"{check.level:<4}", fg=colours[check.level], bold=check.level != "ok")
        say(level, f"  {check.about:<8}  {check.text}")
        if check.fix:
            say(" " * 16, styled(f"fix: {check.fix}", dim=True))
