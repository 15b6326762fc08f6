"""No place that shows a URL shows a password, however badly the URL is written."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import CeleriacError
from celeriac.servers.url_parts import masked
from tests.cli.project import Project

SECRET = "S3CRET"
ODD = "/?#[]@;: %\n"
"""Characters that mean something in a URL, or spoil a line."""

LOGINS = (
    *(f":12{sign}{SECRET}" for sign in ODD),
    *(f"me:{SECRET}{sign}x" for sign in ODD),
    *(f"me:x@y{sign}{SECRET}" for sign in ODD),
)
SCHEMES = (
    "redis",
    "rediss",
    "redis+socket",
    "sentinel",
    "amqp",
    "amqps",
    "rpc",
    "postgresql",
    "db+postgresql+psycopg",
    "sqlite",
    "memory",
    "kafka",
    "http",
)
WELL_FORMED_LOGIN = (
    "{}://u:S3CRET@h:x/0",
    "{}://u:S3CRET@h:99999/0",
    "{}://u:S3CRET@h/zero?heartbeat=x",
    "{}://u:S3CRET@[h/0",
    "{}://u:S3CRET@/",
    "{}://u:S3CRET@h;http://h",
    "{}://u:S3CRET@h;{}://u:y@i",
    "{}://u:S3CRET@h/0?colour=S3CRET",
    "{}://u:S3CRET@h/0?S3CRET",
    "{}://u:S3CRET@h/0#S3CRET",
    "{}://h/0?sentinel_password=S3CRET",
    "{}://h/0?ssl_cert_reqs=bad&password=S3CRET",
    "{}://h/0?listen_url={}://u:S3CRET@h:x/0",
    "{}://h/0?listen_url={}%3A%2F%2Fu%3AS3CRET%40h%3Ax/0",
    "{}://h/0?sentinel_password=p@S3CRET",
    "{}://u:p@h:1/0?master_name=m&password=@S3CRET",
    "{}://h:1/0?@S3CRET",
    "{}://S3CRET@h/0",
    "{}://u:S3CRET/0",
    "{}://u:S3CRET%40h/0",
    "{}:/u:S3CRET@h/0",
    "{}:u:S3CRET@h",
)
MALFORMED = tuple(
    dict.fromkeys(
        [
            *(f"{scheme}://{login}@127.0.0.1:1/0" for scheme in SCHEMES for login in LOGINS),
            *(form.format(scheme, scheme) for scheme in SCHEMES for form in WELL_FORMED_LOGIN),
            *("u:S3CRET@h", "S3CRET@h", ":S3CRET@h:6379/0", "u:S3CRET", "u:S3CRET://h", "redis//u:S3CRET@h"),
        ]
    )
)
FOR_COMMANDS = (
    "redis://:12/S3CRET@127.0.0.1:1/0",
    "amqp://u:1?S3CRET@127.0.0.1:1/v",
    "u:S3CRET@h",
    "redis://:x#S3CRET@127.0.0.1:1/0",
    "redis://u:S3CRET@127.0.0.1:1/0",
)


@pytest.fixture(autouse=True)
def _captured(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET not in caplog.text


def error_of(url: str, kind: str) -> str:
    """What an app says that is made with this URL and opens it, and what it is shown as."""

    async def open_it() -> str:
        backend = url if kind == "backend" else "disabled://"
        app = Celeriac("shop", broker=url if kind == "broker" else "memory://", backend=backend)
        connections = app.connections()
        return f"{app!r} {connections!r} {app.tasks!r} {app.settings!r}"

    try:
        return asyncio.run(open_it())
    except CeleriacError as error:
        chained = [error, error.__cause__, error.__context__]
        return " ".join(f"{each} {each!r}" for each in chained)


@pytest.mark.parametrize("kind", ["broker", "backend"])
def test_no_app_shows_one(kind: str):
    shown = {url: error_of(url, kind) for url in MALFORMED}
    assert {url: text for url, text in shown.items() if SECRET in text} == {}
    assert {url: text for url, text in shown.items() if "\n" in text} == {}


def test_no_url_is_shown_with_one():
    assert {url: masked(url) for url in MALFORMED if SECRET in masked(url)} == {}
    assert {url: masked(url) for url in MALFORMED if not masked(url).isprintable()} == {}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@host:1/0?client_name=x", "redis://me:***@host:1/0?client_name=x"),
        ("redis://me:secret@host/0?colour=red", "redis://me:***@host/0?***=***"),
        (
            "sentinel://:a@one;sentinel://two?master_name=m&sentinel_password=b",
            "sentinel://:***@one;sentinel://two?master_name=m&sentinel_password=***",
        ),
        ("amqp://rabbit//", "amqp://rabbit//"),
        ("sqlite:////tmp/me@home.db", "sqlite:////tmp/me@home.db"),
        ("redis+socket:///run/redis.sock?virtual_host=1", "redis+socket:///run/redis.sock?virtual_host=1"),
        ("localhost:6379", "localhost:6379"),
        ("django-db", "django-db"),
    ],
)
def test_the_rest_of_a_url_is_shown(url: str, shown: str):
    assert masked(url) == shown


@pytest.mark.parametrize("sign", ["/", "?", "#", "["])
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_an_unescaped_character_is_named_with_what_to_write(scheme: str, sign: str):
    said = error_of(f"{scheme}://me:sec{sign}{SECRET}@127.0.0.9/2", "broker")
    assert f"%{ord(sign):02X} for {sign}" in said
    assert f"{scheme}://***@127.0.0.9/2" in said


@pytest.mark.parametrize("url", FOR_COMMANDS)
@pytest.mark.parametrize(
    "command", ["doctor", "doctor --json", "queues", "dead", "call shop.add 1 2", "result x"]
)
def test_no_command_shows_one(project: Project, url: str, command: str):
    for options in (["-b", url], ["-b", "memory://", "--backend", url]):
        told = project.run(*command.split(), "-A", project.module, *options)
        assert SECRET not in told.output
        assert told.exception is None or isinstance(told.exception, SystemExit)


def test_no_process_of_a_worker_shows_one(project: Project):
    url = f"redis://u:{SECRET}@127.0.0.1:1/0"
    urls = ["--broker", f"u:{SECRET}@h", "-b", f"redis://:{SECRET[0]}@h", f"-b{url}", f"--backend={url}"]
    process = project.start("worker", "-A", project.module, *urls, "--processes", "2")
    process.wait_for("cannot subscribe")
    if sys.platform == "linux":  # elsewhere a process cannot change what is shown of it
        lines = dict(command_lines(process.pid))
        assert len(lines) >= 3
        assert {pid: line for pid, line in lines.items() if SECRET in line} == {}
        place = "u:***@127.0.0.1:1/0"
        shown = f"--broker ***@h -b redis://:***@h -bredis://{place} --backend=redis://{place}"
        assert shown in lines[process.pid].replace("\0", " ")
    assert process.stop() == 0
    assert SECRET not in process.output


def command_lines(pid: int) -> Iterator[tuple[int, str]]:
    """What every user of the machine sees of a process and its children."""
    yield pid, Path(f"/proc/{pid}/cmdline").read_text()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from command_lines(int(child))
