"""A private pgbouncer in transaction mode before a PostgreSQL.

Rules: it refuses to run as root, so then it runs as the user that PostgreSQL's package made.
"""

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.postgres import unprivileged
from tests.servers.process import LoggedProcess
from tests.servers.redis import HOST, free_port

MISSING = (
    "these tests need the program `pgbouncer`, and it is not there. `make test` installs it where it can; by hand: "
    "`sudo apt-get install pgbouncer` (Debian, Ubuntu) or `brew install pgbouncer` (macOS)."
)
PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"

SETTINGS = """
[databases]
* = host={host} port={server}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
ignore_startup_parameters =
"""


class PgBouncer:
    """``with PgBouncer(port) as pooler`` starts and ends one.

    :param server: the port of the PostgreSQL.
    """

    def __init__(self, server: int) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{PLACES}")
        if program is None:
            raise FileNotFoundError(MISSING)
        self._files = tempfile.TemporaryDirectory(prefix="pgbouncer-", ignore_cleanup_errors=True)
        self.port = free_port()
        directory = Path(self._files.name)
        users, settings = directory / "users.txt", directory / "pgbouncer.ini"
        users.write_text('"postgres" ""\n"guest" ""\n')
        settings.write_text(SETTINGS.format(host=HOST, server=server, port=self.port, users=users))
        as_user = unprivileged()
        if as_user:
            account = pwd.getpwnam("postgres")
            for path in (directory, users, settings):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._command = [*as_user, program, str(settings)]
        self._process: LoggedProcess | None = None

    def __enter__(self) -> Self:
        self._process = LoggedProcess(self._command)
        try:
            self._process.wait_for("process up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def url(self, schema: str, *, user: str = "postgres", listen_url: str = "") -> str:
        """The URL of a schema through the pooler."""
        listen = f"&listen_url={listen_url}" if listen_url else ""
        return f"postgresql://{user}@{HOST}:{self.port}/postgres?schema={schema}{listen}"

    def close(self) -> None:
        """End it and remove its files."""
        if self._process is not None:
            self._process.kill()
        self._files.cleanup()
