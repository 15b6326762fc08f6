"""The grammar of Redis URLs: every form that Celery takes, and what it means to the driver.

Rules: parsing touches no network; user, password and path are percent-decoded; an option that is not known is a
``ConfigError`` that names the known ones.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import msgspec

from celeriac.errors import ConfigError
from celeriac.servers.tls import FILES as TLS_FILES
from celeriac.servers.tls import OPTIONS as TLS_OPTIONS
from celeriac.servers.tls import Tls, read_tls
from celeriac.servers.url_parts import UrlParts, masked, options_of, take_apart, unknown_option

_PLAIN = {"redis", "valkey"}
_TLS = {"rediss", "valkeys", "sentinels"}
_SOCKET = {"redis+socket", "valkey+socket", "unix"}
_SENTINEL = {"sentinel", "sentinels"}
SCHEMES = frozenset({*_PLAIN, *_TLS, *_SOCKET, *_SENTINEL})
"""Schemes that are read here."""

_DEFAULT_PORT = 6379
_DEFAULT_SENTINEL_PORT = 26379

_SENTINEL_OPTIONS = {"master_name", "sentinel_username", "sentinel_password"}
_COMMON_OPTIONS = {"db", "client_name", "global_keyprefix", "fanout_prefix", "fanout_patterns"}

_CHANNELS = "/{db}."
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class RedisTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where a Redis is and how to log in.

    :param addresses: host and port of the server, or of each sentinel; empty for a Unix socket.
    :param path: the Unix socket, if it is one.
    :param master: name of the master that sentinels are asked for.
    :param tls: driver options of a TLS connection; ``None`` without TLS.
    :param key_prefix: put in front of every key, from ``global_keyprefix``.
    :param channel_prefix: put in front of the channels of remote control and events, from ``fanout_prefix``.
    :param channel_per_key: whether each routing key of events has a channel, from ``fanout_patterns``.
    """

    addresses: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: dict[str, Any] | None = None
    master: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    client_name: str | None = None
    key_prefix: str = ""
    channel_prefix: str = "/0."
    channel_per_key: bool = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # what prints fields one by one prints none

    @property
    def server(self) -> RedisTarget:
        """The same without what concerns one database: its number, the prefix of keys, the channels."""
        return msgspec.structs.replace(self, db=0, key_prefix="", channel_prefix="", channel_per_key=True)

    def is_same_server(self, other: RedisTarget) -> bool:
        """Whether this is the same server under the same user, in whichever database."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("addresses", "path", "master", "username", "tls")
        )

    @property
    def security(self) -> Tls | None:
        """What was asked for of TLS; ``None`` without it."""
        if self.tls is None:
            return None
        files = {name: value for name, value in self.tls.items() if name in TLS_FILES}
        return Tls(self.tls["ssl_cert_reqs"], self.tls["ssl_check_hostname"], files)

    def __str__(self) -> str:
        """Return the place without its password, fit for a message."""
        if self.path is not None:
            return f"redis+socket://{self.path}?virtual_host={self.db}"
        places = ",".join(f"{host}:{port}" for host, port in self.addresses)
        if self.master is not None:
            return f"sentinel://{places}/{self.db} (master {self.master!r})"
        return f"{'rediss' if self.tls is not None else 'redis'}://{places}/{self.db}"


def parse_redis_url(url: str) -> RedisTarget:
    """Return what a Redis URL says.

    Forms (Celery: "Using Redis", kombu's ``redis`` and ``sentinel`` transports): ``redis://user:password@host:port/db``,
    ``rediss://`` with ``ssl_cert_reqs``, ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_check_hostname``;
    ``redis+socket:///path?virtual_host=db``; ``sentinel://host:port/db;sentinel://...?master_name=name`` (``sentinels``
    with TLS); ``valkey`` in place of ``redis``. Raises ``ConfigError``.
    """
    places = take_apart(url)
    schemes = {place.scheme for place in places}
    if len(places) > 1 and not (schemes <= _SENTINEL and len(schemes) == 1):
        raise ConfigError(
            f"{masked(url)!r} names several servers: give the URL of one, and start a worker for each; for failover of "
            "one Redis name its sentinels, sentinel://one:26379;sentinel://two:26379?master_name=name"
        )
    if not schemes <= SCHEMES:
        raise ConfigError(
            f"not a Redis URL: {masked(url)!r}; use one of the schemes {', '.join(sorted(SCHEMES))}"
        )
    scheme = places[0].scheme
    options = options_of(places)
    _check_names(scheme, options)
    common: dict[str, Any] = {
        "username": _first("user", scheme, (place.username for place in places)),
        "password": _first("password", scheme, (place.password for place in places)),
        "client_name": options.get("client_name"),
        "key_prefix": options.get("global_keyprefix", ""),
    }
    if scheme in _SOCKET:
        db = _socket_database(options)
        return RedisTarget(path=_socket_path(places[0]), db=db, **_channels(options, db), **common)
    in_path = _first("database", scheme, (place.path.strip("/") for place in places))
    db = _one_database(in_path, options.get("db"))
    common |= _channels(options, db)
    tls = _tls(options) if scheme in _TLS else None
    if scheme in _SENTINEL:
        if not options.get("master_name"):
            raise ConfigError("a sentinel:// URL needs the master's name: add ?master_name=<name>")
        return RedisTarget(
            addresses=tuple(_address(place, _DEFAULT_SENTINEL_PORT) for place in places),
            db=db,
            master=options["master_name"],
            sentinel_username=options.get("sentinel_username"),
            sentinel_password=options.get("sentinel_password"),
            tls=tls,
            **common,
        )
    return RedisTarget(addresses=(_address(places[0], _DEFAULT_PORT),), db=db, tls=tls, **common)


def _check_names(scheme: str, options: dict[str, str]) -> None:
    known = set(_COMMON_OPTIONS)
    if scheme in _TLS:
        known |= set(TLS_OPTIONS)
    if scheme in _SOCKET:
        known |= {"virtual_host"}
    if scheme in _SENTINEL:
        known |= _SENTINEL_OPTIONS
    if (error := unknown_option(scheme, options, known)) is not None:
        raise error


def _channels(options: dict[str, str], db: int) -> dict[str, Any]:
    """Return what the options say of channels (kombu: ``fanout_prefix``, ``fanout_patterns``)."""
    prefix, per_key = options.get("fanout_prefix", _CHANNELS), options.get("fanout_patterns", "true")
    if (flag := _FLAGS.get(prefix.lower())) is not None:
        prefix = _CHANNELS if flag else ""
    if per_key.lower() not in _FLAGS:
        raise ConfigError(f"fanout_patterns={per_key!r} is not true or false")
    return {
        "channel_prefix": prefix.replace("{db}", str(db)),
        "channel_per_key": _FLAGS[per_key.lower()],
    }


def _socket_path(place: UrlParts) -> str:
    if place.host or place.port is not None:
        raise ConfigError(
            f"{place.scheme}://{place.host}... names a host, and a Unix socket has none: write three slashes, "
            f"{place.scheme}:///run/redis.sock"
        )
    if not place.path.strip("/"):
        raise ConfigError("a Unix socket URL needs a path: redis+socket:///run/redis.sock?virtual_host=0")
    return place.path


def _socket_database(options: dict[str, str]) -> int:
    return _one_database(options.get("virtual_host"), options.get("db"))


def _tls(options: dict[str, str]) -> dict[str, Any]:
    tls = read_tls(options)
    return {
        "ssl_cert_reqs": tls.check,
        "ssl_check_hostname": tls.check_host,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        **tls.files,
    }


def _address(place: UrlParts, default_port: int) -> tuple[str, int]:
    return place.host or "localhost", place.port or default_port


def _one_database(*given: str | None) -> int:
    """Return the database that is named once, or alike each time."""
    numbers = {_database(text) for text in given if text}
    if len(numbers) > 1:
        raise ConfigError(
            f"a Redis URL names two databases, {' and '.join(map(str, sorted(numbers)))}: leave one out"
        )
    return next(iter(numbers), 0)


def _database(text: str) -> int:
    if not text.strip("/").isdecimal() or len(text) > 10:
        raise ConfigError(f"a Redis database is a number such as /0, not {text!r}")
    return int(text.strip("/"))


def _first(what: str, scheme: str, values: Iterable[str | None]) -> str | None:
    """Return what one of the servers says, or all of them alike."""
    given = list(dict.fromkeys(value for value in values if value))
    if len(given) > 1:
        raise ConfigError(f"the servers of one {scheme}:// URL have the same {what}; this one gives several")
    return given[0] if given else None
