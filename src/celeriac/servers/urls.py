"""From a URL to the server that it names; the only module that imports drivers, and only then.

Rules: the scheme is judged at once, the driver is imported when the connection is wanted; what a server offers is the
business of its wing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from celeriac.errors import ConfigError
from celeriac.servers.url_parts import FILE_SCHEMES, file_of, masked, scheme_of

if TYPE_CHECKING:
    from celeriac.contracts.fanout import Fanout
    from celeriac.contracts.server import Server, Terms


class OpenServer(Protocol):
    """Opens a server."""

    def __call__(self, connections: object | None = None, /) -> Server:
        """Return the server; it uses these connections of a broker where they lead there.

        Raises ``ConfigError`` for a URL that cannot be used, and where the driver is not installed, naming the extra
        that brings it.
        """
        ...


OpenFanout: TypeAlias = "Callable[[], AbstractAsyncContextManager[Fanout]]"
"""Opens the fanout of a server, and nothing else of it."""

Wing: TypeAlias = "Callable[[str, Terms], OpenServer]"
"""Returns what opens the server of a URL. Raises ``ModuleNotFoundError`` where its driver is missing."""

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix", "sentinel", "sentinels", "valkey", "valkeys")
AMQP_SCHEMES = ("amqp", "amqps", "pyamqp")
POSTGRES_SCHEMES = ("postgresql", "postgres")
BROKER_SCHEMES = ("sqlite", *REDIS_SCHEMES, *POSTGRES_SCHEMES, *AMQP_SCHEMES, "memory")
BACKEND_SCHEMES = (
    "sqlite",
    *REDIS_SCHEMES,
    *POSTGRES_SCHEMES,
    "rpc",
    *AMQP_SCHEMES,
    "memory",
    "db+sqlite",
    "db+postgresql",
    "disabled",
)


def broker_server(url: str, terms: Terms) -> OpenServer:
    """Return what opens the server of a broker's URL. Raises ``ConfigError`` for one that names no broker."""
    return _opener("broker", url, terms, BROKER_SCHEMES)


def result_server(url: str, terms: Terms) -> OpenServer:
    """Return what opens the server of a result store's URL. Raises ``ConfigError`` for one that names none."""
    return _opener("backend", url, terms, BACKEND_SCHEMES)


def fanout_alone(url: str) -> OpenFanout | None:
    """Return what opens only the fanout of a broker, as an app of default settings would have it.

    ``None`` where a server has no such part, or its driver is not installed. Raises ``ConfigError`` for a URL that
    cannot be used.
    """
    if scheme_of(url) not in REDIS_SCHEMES:
        return None
    try:
        from celeriac.servers.redis.fanout_alone import opener
    except ModuleNotFoundError:
        return None
    return opener(url)


def import_driver(url: str) -> None:
    """Import what the server of a URL needs, if it is known and installed: processes forked after that share it."""
    kind = _KINDS.get(_without_driver(scheme_of(url)))
    if kind is not None:
        with suppress(ImportError):
            kind.find()


def _opener(what: str, url: str, terms: Terms, schemes: tuple[str, ...]) -> OpenServer:
    scheme = _without_driver(scheme_of(url))
    if scheme not in schemes:
        raise _unknown(what, url, scheme, schemes)
    if scheme in FILE_SCHEMES:
        file_of(url)
    opener: OpenServer | None = None

    def open_server(connections: object | None = None, /) -> Server:
        nonlocal opener
        if opener is None:
            kind = _KINDS[scheme]
            try:
                opener = kind.find()(url, terms)
            except ModuleNotFoundError as error:
                raise _missing(kind.extra, url, error) from error
        return opener(connections)

    return open_server


def _redis() -> Wing:
    from celeriac.servers.redis.server import opener

    return opener


def _rabbitmq() -> Wing:
    from celeriac.servers.rabbitmq.server import opener

    return opener


def _sqlite() -> Wing:
    from celeriac.servers.sqlite.server import opener

    return opener


def _postgres() -> Wing:
    from celeriac.servers.postgres.server import opener

    return opener


def _memory() -> Wing:
    from celeriac.servers.memory.server import opener

    return opener


def _disabled() -> Wing:
    from celeriac.servers.disabled import opener

    return opener


class _Kind(msgspec.Struct, frozen=True):
    """A kind of server.

    :param extra: the optional dependency that brings its driver.
    """

    find: Callable[[], Wing]
    extra: str = ""


_KINDS = {
    **dict.fromkeys(REDIS_SCHEMES, _Kind(_redis, "redis")),
    **dict.fromkeys((*AMQP_SCHEMES, "rpc"), _Kind(_rabbitmq, "amqp")),
    **dict.fromkeys(FILE_SCHEMES, _Kind(_sqlite)),
    **dict.fromkeys((*POSTGRES_SCHEMES, "db+postgresql"), _Kind(_postgres, "postgres")),
    "memory": _Kind(_memory),
    "disabled": _Kind(_disabled),
}


def _missing(extra: str, url: str, error: ModuleNotFoundError) -> ConfigError:
    library = (error.name or extra).partition(".")[0]
    return ConfigError(
        f"{scheme_of(url)}:// needs {library}, which is not installed: pip install 'celeriac[{extra}]'"
    )


def _without_driver(scheme: str) -> str:
    """Return the scheme without the driver that SQLAlchemy would use, as Celery's URLs name it."""
    return "db+postgresql" if scheme.startswith("db+postgresql+") else scheme


def _unknown(what: str, url: str, scheme: str, known: tuple[str, ...]) -> ConfigError:
    if scheme.startswith(("sqla+", "sqlalchemy+")):
        return ConfigError(
            f"{scheme}:// is kombu's broker in a database, which loses what a worker holds when it dies and keeps "
            "every row for ever: use postgresql:// or sqlite:///, whose tables are of another form"
        )
    schemes = ", ".join(f"{name}://" for name in known)
    problem = (
        f"unknown scheme {scheme}:// for a {what}" if scheme else f"{what} URL {masked(url)!r} has no scheme"
    )
    return ConfigError(f"{problem}: known are {schemes}")
