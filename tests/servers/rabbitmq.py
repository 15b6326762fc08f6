"""A private RabbitMQ node.

Rules: it has a name, ports, a port mapper, a cookie and files of its own, so it neither finds nor disturbs another; no
plugins. Tests share one node, so they use fresh names and leave the rest alone.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import amqp
from tests.servers.process import LoggedProcess
from tests.servers.redis import HOST, free_port, make_certificate

MISSING = (
    "these tests need the program `{program}`, and it is not there. `make test` installs it where it can; by hand: "
    "`sudo apt-get install rabbitmq-server` (Debian, Ubuntu) or `brew install rabbitmq` (macOS)."
)
PLACES = (
    "/usr/lib/rabbitmq/bin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/usr/local/sbin",
)
"""Where the scripts are that do not change the user, as Debian's on the PATH do."""

START_TIMEOUT = 150.0
CONTROL_TIMEOUT = 90.0


class RabbitServer:
    """One RabbitMQ node; ``with RabbitServer() as server`` starts and ends it.

    :param tls: listen for TLS as well, with a certificate made for the occasion.
    :param settings: further lines of rabbitmq.conf.
    :param advanced: what rabbitmq.conf cannot say, in Erlang, as advanced.config has it.
    """

    def __init__(self, *, tls: bool = False, settings: tuple[str, ...] = (), advanced: str = "[]") -> None:
        self._scripts = _scripts()
        self._epmd_program = _program("epmd")
        self.port, self._dist_port, self._epmd_port = free_port(), free_port(), free_port()
        self.tls_port = free_port() if tls else None
        self._settings = settings
        self._advanced = advanced
        self._files = tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True)
        self.directory = Path(self._files.name)
        self.certificate = self.directory / "server.crt"
        self._node = f"celeriac-{secrets.token_hex(4)}@localhost"
        self._epmd: LoggedProcess | None = None
        self._process: LoggedProcess | None = None
        if tls:
            make_certificate(self.certificate, self.directory / "server.key")
        self._write_settings()

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
        assert self._process is not None, "this RabbitMQ was never started"
        return self._process

    def url(self, vhost: str = "") -> str:
        """Its plain URL; an empty ``vhost`` is the vhost ``/``."""
        return f"amqp://guest:guest@{HOST}:{self.port}/{vhost}"

    def tls_url(self) -> str:
        """Its TLS URL, with the certificate that vouches for it."""
        return f"amqps://guest:guest@{HOST}:{self.tls_port}/?ssl_ca_certs={self.certificate}"

    def client(self, vhost: str = "/") -> amqp.Connection:
        """A blocking connection for a test's own look; the caller closes it."""
        connection: Any = amqp.Connection(
            host=f"{HOST}:{self.port}", userid="guest", password="guest", virtual_host=vhost
        )
        connection.connect()
        return connection

    def start(self) -> None:
        """Start the node, on the same port each time; return when it takes connections."""
        if self._epmd is None:
            self._epmd = LoggedProcess(
                [self._epmd_program, "-address", HOST, "-port", str(self._epmd_port)], env=self._environment()
            )
        self._process = LoggedProcess(
            [str(self._scripts / "rabbitmq-server")], env=self._environment(), cwd=self.directory
        )
        self._process.wait_for("completed with", timeout=START_TIMEOUT)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()

    def pause(self) -> None:
        """Let it hang: connections stay open, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def recover(self) -> None:
        """Undo what a test that failed halfway has left: it hangs, has ended, or its application is stopped."""
        self.resume()
        if not self.process.running:
            self.start()
            return
        with socket.socket() as probe:
            if probe.connect_ex((HOST, self.port)):
                self.control("start_app")

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl, which takes a second or two; its output.

        :raises AssertionError: it failed.
        """
        done = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "--quiet", *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=CONTROL_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def add_vhosts(self, names: Sequence[str]) -> None:
        """Make virtual hosts that the user guest may use, all in one call of rabbitmqctl."""
        quoted = ", ".join(f'<<"{name}">>' for name in names)
        may_all = _may('<<"guest">>', "V", ".*", ".*", ".*")
        self.control(
            "eval", f'lists:foreach(fun(V) -> rabbit_vhost:add(V, <<"guest">>), {may_all} end, [{quoted}]).'
        )

    def add_user(self, name: str, password: str, configure: str, write: str, read: str) -> None:
        """Make a user with these rights in a virtual host of its name, which guest may use, too."""
        made = (
            f'N = <<"{name}">>, rabbit_vhost:add(N, <<"guest">>)',
            f'rabbit_auth_backend_internal:add_user(N, <<"{password}">>, <<"guest">>)',
            _may("N", "N", configure, write, read),
            _may('<<"guest">>', "N", ".*", ".*", ".*"),
        )
        self.control("eval", f"{', '.join(made)}.")

    def close(self) -> None:
        """End it and remove its files."""
        for process in (self._process, self._epmd):
            if process is not None and process.running:
                process.kill()
        self._files.cleanup()

    def _write_settings(self) -> None:
        lines = [
            "loopback_users = none",
            f"listeners.tcp.1 = {HOST}:{self.port}",
            "log.file = false",
            "log.console = true",
            "log.console.level = warning",
            "disk_free_limit.absolute = 10MB",
            "max_message_size = 2000000",
            *self._settings,
        ]
        if self.tls_port:
            lines += [
                f"listeners.ssl.1 = {HOST}:{self.tls_port}",
                f"ssl_options.cacertfile = {self.certificate}",
                f"ssl_options.certfile = {self.certificate}",
                f"ssl_options.keyfile = {self.directory / 'server.key'}",
                "ssl_options.verify = verify_none",
            ]
        (self.directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.directory / "advanced.config").write_text(f"{self._advanced}.\n")
        (self.directory / "enabled_plugins").write_text("[].\n")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
        return kept | {
            "HOME": str(self.directory),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RUNNING_UNDER_SYSTEMD": "true",  # makes the script become the node, so that a signal reaches it
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "node.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }


def _may(user: str, vhost: str, configure: str, write: str, read: str) -> str:
    """Return the Erlang that gives a user rights in a virtual host, both given in Erlang."""
    rights = ", ".join('<<"{}">>'.format(right.replace("\\", r"\\")) for right in (configure, write, read))
    return f'rabbit_auth_backend_internal:set_permissions({user}, {vhost}, {rights}, <<"guest">>)'


def _scripts() -> Path:
    on_path = shutil.which("rabbitmq-server")
    places = [*map(Path, PLACES), *([Path(on_path).resolve().parent] if on_path else [])]
    for place in places:
        if (place / "rabbitmq-server").exists() and (place / "rabbitmqctl").exists():
            return place
    raise FileNotFoundError(MISSING.format(program="rabbitmq-server"))


def _program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise FileNotFoundError(MISSING.format(program=name))
    return program
