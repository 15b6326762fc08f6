"""``celeriac web``: the dashboard, served alone."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.console import say
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.loading import load_existing
from celeriac.cli.observation import Observation
from celeriac.cli.shown import split_metrics, takes_metrics
from celeriac.cli.source import Source, takes_source
from celeriac.errors import ConfigError

if TYPE_CHECKING:
    from celeriac.web.access import Authorize, User

ROLES = "read, write"


@click.command("web", short_help="Show the fleet in a browser: tasks, errors, queues, workers.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on."
)
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=5555, show_default=True, metavar="PORT")
@click.option(
    "--history",
    default="celeriac-history.db",
    show_default=True,
    metavar="FILE|URL",
    help="Keeps what became of tasks: a file, or a PostgreSQL database.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME:ROLE:HASH",
    help=f"A user who may log in; roles are {ROLES}; --hash-password makes the hash.",
)
@click.option(
    "--token",
    "tokens",
    multiple=True,
    metavar="NAME:ROLE:HASH",
    help="A program that may come in by a token; --new-token makes one with its hash.",
)
@click.option("--trust-header", metavar="NAME", help="The header in which a proxy names the user.")
@click.option(
    "--host-allowed", "hosts", multiple=True, metavar="HOST", help="A name that browsers may use for it."
)
@click.option("--read-only", is_flag=True, help="Nobody may change anything.")
@click.option(
    "--hash-password", is_flag=True, help="Ask for a password, print what to give to --user, and end."
)
@click.option("--new-token", is_flag=True, help="Print a token for a program, and what to give to --token.")
@takes_metrics
@takes_source
def web(
    source: Source,
    host: str,
    port: int,
    history: str,
    users: Sequence[str],
    tokens: Sequence[str],
    trust_header: str | None,
    hosts: Sequence[str],
    read_only: bool,
    hash_password: bool,
    new_token: bool,
    **options: Any,
) -> None:
    """Serve the dashboard until stopped: for an app, or for any fleet of Celery's by its URLs.

    Without users only this machine is answered.
    """
    try:
        from celeriac.web import access
        from celeriac.web.serving import serve
    except ImportError as error:
        raise CommandFailed(
            f"the dashboard needs {error.name}: pip install 'celeriac[web]'", Exit.USAGE
        ) from error
    if hash_password:
        say(access.hash_password(click.prompt("Password", hide_input=True, confirmation_prompt=True)))
        return
    if new_token:
        token = access.new_token()
        say(f"token: {token}")
        say(f"--token NAME:ROLE:{access.hash_token(token)}")
        return
    authorize = _authorize(users, tokens, trust_header)
    if authorize is None and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached by others: say who may come in with --user, --token or --trust-header,"
            " or listen on 127.0.0.1"
        )
    with Observation(split_metrics(options)) as observation:
        app = load_existing(source)
        asyncio.run(
            serve(
                app,
                host=host,
                port=port,
                history=history,
                authorize=authorize,
                hosts=hosts,
                read_only=read_only,
                ready=lambda address: say(f"dashboard at http://{address}/ (stop with Ctrl-C)"),
                around=lambda _: observation.beside(app),
            )
        )


def _authorize(users: Sequence[str], tokens: Sequence[str], trust_header: str | None) -> Authorize | None:
    from celeriac.web import access

    if (users or tokens) and trust_header:
        raise ConfigError(
            "--trust-header cannot be used with --user or --token: one of them says who comes in"
        )
    if trust_header:
        return access.by_header(trust_header)
    people = [_user("--user", text) for text in users]
    for user in people:
        access.is_password("", user.hashed)  # a text that is no hash is an error now, not at every request
    programs = [_user("--token", text) for text in tokens]
    if not people and not programs:
        return None
    return access.any_of([access.by_users(people), access.by_tokens(programs)])


def _user(option: str, text: str) -> User:
    from celeriac.web.access import Access, User

    name, _, rest = text.partition(":")
    role, _, hashed = rest.partition(":")
    roles = {"read": Access.READ, "write": Access.WRITE}
    if not name or role not in roles:
        raise ConfigError(f"{option} {name}:{role}:...: give NAME:ROLE:HASH; roles are {ROLES}")
    return User(name, hashed, roles[role])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
