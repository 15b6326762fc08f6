"""A private Redis, and a private pair of Sentinels that watch a primary and its replica.

Rules: everything listens on free ports of the loopback address and on a Unix socket, keeps its files in a directory
of its own, and is gone after the session. Tests share one server, so they use fresh names and never flush it.
"""

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import redis
from tests.servers.process import LoggedProcess

HOST = "127.0.0.1"
MISSING = (
    "these tests need the program `redis-server`, and it is not on the PATH. `make test` installs it where it can; by "
    "hand: `sudo apt-get install redis-server` (Debian, Ubuntu) or `brew install redis` (macOS)."
)
# Sentinels look and tell every 1 to 10 s; a test need not wait for that. A Sentinel turns a replica back that was
# promoted without its knowledge for four publish periods: that one must outlast a failover. It promotes no replica, and
# turns no former primary back, that it has not heard of for two or three info periods, which on a busy machine pass.
HASTE = ("info-period", "300", "publish-period", "500", "ping-period", "100", "ask-period", "100")

FAILOVERS = 20
"""How often a failover is ordered at the most."""


class RedisServer:
    """One redis-server; ``with RedisServer() as server`` starts and ends it.

    :param password: what clients must authenticate with; ``None`` for no password.
    :param tls: listen for TLS as well, with a certificate made for the occasion.
    :param durable: keep the data over `kill` and `start` (append-only file, synced at every write).
    :param arguments: further arguments of redis-server.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        tls: bool = False,
        durable: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self._program = redis_program()
        self.password = password
        self.port = free_port()
        self.tls_port = free_port() if tls else None
        self._durable = durable
        self._arguments = arguments
        self._files = tempfile.TemporaryDirectory(prefix="redis-")
        self.directory = Path(self._files.name)
        self.socket_path = self.directory / "redis.sock"
        self.certificate = self.directory / "server.crt"
        self._process: LoggedProcess | None = None
        if tls:
            make_certificate(self.certificate, self.directory / "server.key")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process(self) -> LoggedProcess:
        """The running child process."""
        assert self._process is not None, "this Redis was never started"
        return self._process

    def url(self, db: int = 0) -> str:
        """The server's plain URL."""
        return f"redis://{self._credentials()}{HOST}:{self.port}/{db}"

    def socket_url(self, db: int = 0) -> str:
        """The URL of its Unix socket, as Celery writes it."""
        return f"redis+socket://{self._credentials()}{self.socket_path}?virtual_host={db}"

    def tls_url(self, db: int = 0) -> str:
        """Its TLS URL; the certificate is checked against itself, and its name against ``127.0.0.1``."""
        assert self.tls_port is not None, "this Redis was made without tls=True"
        trust = f"ssl_cert_reqs=required&ssl_ca_certs={quote(str(self.certificate))}"
        return f"rediss://{self._credentials()}{HOST}:{self.tls_port}/{db}?{trust}"

    def client(self, db: int = 0) -> redis.Redis:
        """A blocking client for a test's own look at the keys; the caller closes it."""
        return redis.Redis(host=HOST, port=self.port, db=db, password=self.password, protocol=2)

    def start(self) -> None:
        """Start the server, on the same port each time; return when it takes connections."""
        self._process = LoggedProcess([self._program, *self._options()])
        self._process.wait_for("Ready to accept connections")

    def stop(self) -> None:
        """Let it end in order, as an operator would."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it and start it again; without ``durable`` it comes back empty."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it hang: connections stay open, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its files."""
        if self._process is not None and self._process.running:
            self._process.kill()
        self._files.cleanup()

    def _credentials(self) -> str:
        return f":{quote(self.password, safe='')}@" if self.password else ""

    def _options(self) -> list[str]:
        options = [
            *("--bind", HOST, "--port", str(self.port), "--unixsocket", str(self.socket_path)),
            *("--dir", str(self.directory), "--databases", "64", "--save", "", "--daemonize", "no"),
            *("--repl-diskless-sync-delay", "0"),
            *("--appendonly", "yes" if self._durable else "no", "--appendfsync", "always"),
        ]
        if self.password:
            options += ["--requirepass", self.password, "--masterauth", self.password]
        if self.tls_port:
            options += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", str(self.certificate), "--tls-ca-cert-file", str(self.certificate)]
            options += ["--tls-key-file", str(self.directory / "server.key")]
        return [*options, *self._arguments]


class RedisSentinel:
    """A primary, its replica and two Sentinels; ``with RedisSentinel() as sentinel`` starts and ends them.

    :param name: what the Sentinels call the primary (Celery's transport option ``master_name``).
    """

    def __init__(self, name: str = "primary") -> None:
        self.name = name
        self.primary = RedisServer()
        self.replica = RedisServer(arguments=["--replicaof", f"{HOST} {self.primary.port}"])
        self.ports = [free_port(), free_port()]
        self._files = tempfile.TemporaryDirectory(prefix="sentinel-")
        self._processes: list[LoggedProcess] = []

    def __enter__(self) -> Self:
        self.primary.start()
        self.replica.start()
        self.replica.process.wait_for("MASTER <-> REPLICA sync: Finished with success")
        self._processes = [self._start(port) for port in self.ports]
        for process in self._processes:
            process.wait_for("+slave slave")
            process.wait_for("+sentinel sentinel")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        self.replica.close()
        self.primary.close()
        self._files.cleanup()

    def url(self, db: int = 0) -> str:
        """The URL of both Sentinels, as Celery writes it."""
        return ";".join(f"sentinel://{HOST}:{port}/{db}" for port in self.ports)

    @property
    def primary_port(self) -> int:
        """The port of whoever is the primary now."""
        _, port = self._ask(self.ports[0], "GET-MASTER-ADDR-BY-NAME", self.name)
        return int(port)

    def failover(self) -> None:
        """Make the replica the primary; return when both Sentinels name it so."""
        ordering = self._processes[0]
        for aborted in range(FAILOVERS):
            self._ask(self.ports[0], "FAILOVER", self.name)
            # In haste, a replica not heard of for 0.3 s is none to promote, and a busy machine takes that long.
            ordering.wait_for(f"+switch-master {self.name}", "-failover-abort", others_before=aborted)
            if ordering.output.count("-failover-abort") == aborted:
                break
        for process in self._processes:
            process.wait_for(f"+switch-master {self.name}")

    def name_another(self, server: RedisServer) -> None:
        """Have both Sentinels name this server as the primary; the former one stays one that takes writes."""
        for port in self.ports:
            self._ask(port, "REMOVE", self.name)
            self._ask(port, "MONITOR", self.name, HOST, str(server.port), "1")

    def _ask(self, port: int, *command: str) -> Any:
        with closing(redis.Redis(host=HOST, port=port, protocol=2)) as client:
            return client.execute_command("SENTINEL", *command)

    def _start(self, port: int) -> LoggedProcess:
        settings = Path(self._files.name, f"{port}.conf")  # a Sentinel rewrites its file: one for each
        settings.write_text(
            f"port {port}\nbind {HOST}\ndir {self._files.name}\n"
            f"sentinel monitor {self.name} {HOST} {self.primary.port} 1\n"
            f"sentinel down-after-milliseconds {self.name} 1000\n"
            f"sentinel failover-timeout {self.name} 5000\n"
        )
        process = LoggedProcess([redis_program(), str(settings), "--sentinel"])
        process.wait_for(f"+monitor master {self.name}")
        self._ask(port, "DEBUG", *HASTE)
        return process


def redis_program() -> str:
    """The path of redis-server, which also is what a Sentinel runs.

    :raises FileNotFoundError: it is not installed; the message says how to get it.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError(MISSING)
    return program


def free_port() -> int:
    """A TCP port of the loopback address that nothing listened on a moment ago.

    It is none of those that the system gives to outgoing connections: one could take it while a server restarts.
    """
    while True:
        port = secrets.randbelow(20_000) + 10_000
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port


def make_certificate(certificate: Path, key: Path) -> None:
    """Write a self-signed certificate for the loopback address, and its key.

    :raises FileNotFoundError: the program ``openssl`` is not installed.
    """
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
