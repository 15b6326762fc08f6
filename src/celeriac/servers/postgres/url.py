"""URLs of PostgreSQL databases.

Rules: the part of the scheme that names a driver is ignored, since Celery's URLs carry it; what an option does not say
is left to the environment, as PostgreSQL's own programs do (``PGUSER``, ``PGPASSFILE``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from celeriac.errors import ConfigError
from celeriac.servers.postgres.tls import FILES
from celeriac.servers.url_parts import UrlParts, take_apart, unknown_option

_TLS = ("sslmode", *FILES)
_OPTIONS = ("schema", "application_name", "host", "listen_url", "connect_timeout", *_TLS)
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Target(msgspec.Struct, frozen=True):
    """One database, as it is connected to.

    :param host: a name, an address, or the directory of a Unix socket; ``None`` where the environment says it.
    :param schema: where the tables are; empty for the first of the search path.
    :param tls: the options about TLS, as libpq has them.
    :param connect_timeout: seconds.
    :param listen: a direct address of the same database, where ``host`` is a pooler.
    """

    host: str | None
    port: int | None
    user: str | None
    password: str | None
    database: str | None
    schema: str = ""
    application_name: str = ""
    tls: Mapping[str, str] = {}
    connect_timeout: float | None = None
    listen: Target | None = None

    def __repr__(self) -> str:
        return f"<Target {self.place}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return []

    @property
    def place(self) -> str:
        """The database, for messages."""
        return f"{self.host or 'the local host'}:{self.port or 5432}/{self.database or ''}"

    @property
    def dsn(self) -> str:
        """A URL that says only how to use TLS."""
        return f"postgresql://?{urlencode(self.tls)}"

    @property
    def address(self) -> dict[str, Any]:
        """What ``asyncpg.connect`` and ``asyncpg.create_pool`` get to find the database and log in."""
        return {
            "dsn": self.dsn,
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
        }

    def leads_to(self, other: Target) -> bool:
        """Whether both are the same tables, seen with the same rights."""
        return self._identity == other._identity

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.host, self.port or 5432, self.user, self.database or self.user, self.schema


def parse_postgres_url(url: str) -> Target:
    """Return the database of a URL.

    Raises ``ConfigError`` for options that are unknown, values that they cannot have, and several URLs in one.
    """
    parts = take_apart(url)
    if len(parts) > 1:
        raise ConfigError(f"a {parts[0].scheme}:// URL names one database: write no second after ;")
    return _target(parts[0])


def _target(parts: UrlParts) -> Target:
    scheme, options = parts.scheme, parts.options
    if error := unknown_option(scheme, options, _OPTIONS):
        raise error
    schema = options.get("schema", "")
    if schema and not _SCHEMA.fullmatch(schema):
        raise ConfigError(
            f"schema={schema!r} in a {scheme}:// URL: write small letters, digits and _, which need no quotes"
        )
    mode = options.get("sslmode")
    if mode is not None and mode not in _MODES:
        raise ConfigError(f"sslmode={mode!r} is not one of {', '.join(_MODES)}")
    for name in FILES:
        if options.get(name) == "":
            raise ConfigError(f"{name}= names no file: give its path, or take the option out")
    if "sslkey" in options and "sslcert" not in options:
        raise ConfigError("sslkey is the key of a certificate: give sslcert too")
    database = parts.path.removeprefix("/")
    if "/" in database:
        raise ConfigError(
            f"a {scheme}:// URL names one database after the host, such as {scheme}://host:5432/shop"
        )
    listen = options.get("listen_url")
    target = Target(
        host=options.get("host") or parts.host or None,
        port=parts.port,
        user=parts.username,
        password=parts.password,
        database=database or None,
        schema=schema,
        application_name=options.get("application_name", ""),
        tls={name: options[name] for name in _TLS if name in options},
        connect_timeout=_seconds(options.get("connect_timeout")),
    )
    if listen is None:
        return target
    direct = msgspec.structs.replace(parse_postgres_url(listen), schema=schema)
    return msgspec.structs.replace(target, listen=direct)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86400:
        raise ConfigError(f"connect_timeout={text!r} in a PostgreSQL URL is no number of seconds")
    return seconds
