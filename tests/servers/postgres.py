"""A private PostgreSQL.

Rules: it listens on a free port of the loopback address and on a Unix socket, keeps its files in a directory of its
own, and is gone after the session. It refuses to run as root, so then it runs as the user that its package made. Tests
share one server: each uses a schema of its own (`postgres_url`).
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.servers.process import LoggedProcess
from tests.servers.redis import HOST, free_port, make_certificate

MISSING = (
    "these tests need the program `postgres`, and it is not there. `make test` installs it where it can; by hand: "
    "`sudo apt-get install postgresql` (Debian, Ubuntu) or `brew install postgresql` (macOS)."
)
PLACES = ("/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt")
"""Where packages put versions of PostgreSQL side by side."""

READY = "database system is ready to accept connections"
START_TIMEOUT = 150.0


class PostgresServer:
    """One PostgreSQL; ``with PostgresServer() as server`` starts and ends it.

    :param durable: let what is committed be on disk, as an operator would; else it outlives a kill of the server alone.
    :param settings: further settings of the server, each ``name=value``.
    :param directory: where to make the directory of its files; without it, where temporary files are.
    :param programs: the directory of its programs; without it, that of the newest version that is installed.
    :param tls: take connections with TLS, too, under ``certificate``.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Sequence[str] = (),
        directory: Path | None = None,
        programs: Path | None = None,
        tls: bool = False,
    ) -> None:
        self._programs = programs or postgres_programs()
        self._files = tempfile.TemporaryDirectory(
            prefix="postgres-", dir=directory, ignore_cleanup_errors=True
        )
        self.directory = Path(self._files.name)
        self.port = free_port()
        self._durable = durable
        self._settings = tuple(settings)
        self._process: LoggedProcess | None = None
        self._as_user = unprivileged()
        self.certificate, key = self.directory / "server.crt", self.directory / "server.key"
        if tls:
            make_certificate(self.certificate, key)
            key.chmod(0o600)
            self._settings += ("ssl=on", f"ssl_cert_file={self.certificate}", f"ssl_key_file={key}")
        if self._as_user:
            account = pwd.getpwnam("postgres")
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._make()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process(self) -> LoggedProcess:
        """The running child process."""
        assert self._process is not None, "this PostgreSQL was never started"
        return self._process

    def url(self, schema: str = "", *, user: str = "postgres", scheme: str = "postgresql") -> str:
        """Its URL; an empty ``schema`` is the first of the search path."""
        options = f"?schema={schema}" if schema else ""
        return f"{scheme}://{user}@{HOST}:{self.port}/postgres{options}"

    def client(self, schema: str = "", *, user: str = "postgres") -> AbstractContextManager[Any]:
        """A blocking connection for a test's own look, in autocommit mode; ``with`` closes it."""
        options = f"-c search_path={schema}" if schema else ""
        connection: Any = psycopg.connect(
            host=HOST, port=self.port, user=user, dbname="postgres", options=options, autocommit=True
        )
        return connection

    def start(self) -> None:
        """Start the server, on the same port each time; return when it takes connections."""
        settings = [
            f"unix_socket_directories={self.directory}",
            f"listen_addresses={HOST}",
            "max_connections=300",
            "shared_buffers=64MB",
            "logging_collector=off",
            "log_checkpoints=off",
            "lc_messages=C",
            *([] if self._durable else ["fsync=off", "full_page_writes=off"]),
            *self._settings,
        ]
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += [part for setting in settings for part in ("-c", setting)]
        self._process = LoggedProcess([*self._as_user, *command], cwd=self.directory)
        self._process.wait_for(READY, timeout=START_TIMEOUT)

    def stop(self) -> None:
        """Let it end in order, and close every connection at once."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """End it at once, without writing what it has in memory, and start it again: it recovers from its log."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        self.start()

    def close(self) -> None:
        """End it and remove its files."""
        if self._process is not None and self._process.running:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        self._files.cleanup()

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _make(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "postgres", "--auth=trust"]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(
            [*self._as_user, *command], cwd=self.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"initdb failed:\n{done.stdout}{done.stderr}"


def postgres_programs() -> Path:
    """The directory of PostgreSQL's programs, of the newest version there is.

    :raises FileNotFoundError: it is not installed; the message says how to get it.
    """
    found = [
        program.parent
        for place in PLACES
        for program in Path(place).glob("*/bin/postgres")
        if program.exists()
    ]
    if found:
        return max(
            found,
            key=lambda place: [
                int(part) for part in place.parent.name.split("@")[-1].split(".") if part.isdecimal()
            ],
        )
    on_path = shutil.which("postgres")
    if on_path is None:
        raise FileNotFoundError(MISSING)
    return Path(on_path).parent


def unprivileged() -> list[str]:
    """What runs a command as the user of the package, where this process is root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL", "--"]
