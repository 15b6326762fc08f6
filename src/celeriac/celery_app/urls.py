"""From Celery's URLs, TLS dictionaries and transport options to celeriac's URLs.

Rules: pure; a URL is taken apart as kombu does, and written anew with every part quoted, so what Celery connects to is
what celeriac connects to; an option that is not understood becomes a departure and is left out, never guessed. A
password with an unescaped character, of which kombu would make a host and its port, is refused and never shown.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from kombu.utils.url import url_to_parts, urlparts

from celeriac.celery_app.differences import Departure
from celeriac.errors import ConfigError
from celeriac.servers.tls import OPTIONS as TLS_OPTIONS
from celeriac.servers.url_parts import masked, take_apart
from celeriac.servers.urls import AMQP_SCHEMES, BACKEND_SCHEMES, BROKER_SCHEMES

DEFAULT_BROKER = "amqp://guest:guest@localhost:5672//"
"""What Celery connects to where nothing is said."""

_SENTINELS = ("sentinel", "sentinels")
_RABBITMQ = (*AMQP_SCHEMES, "rpc")
_WITH_TLS = {
    "redis": "rediss",
    "sentinel": "sentinels",
    "valkey": "valkeys",
    "amqp": "amqps",
    "pyamqp": "amqps",
}
_TLS_SCHEMES = frozenset(_WITH_TLS.values())
_MODES: Mapping[int, str] = {
    ssl.CERT_NONE: "none",
    ssl.CERT_OPTIONAL: "optional",
    ssl.CERT_REQUIRED: "required",
}

_LEFT_TO_US = frozenset(
    {
        *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"),
        *(
            "retry_on_timeout",
            "health_check_interval",
            "max_connections",
            "connect_timeout",
            "connection_timeout",
        ),
        *(
            "max_retries",
            "interval_start",
            "interval_step",
            "interval_max",
            "polling_interval",
            "retry_policy",
        ),
        *("confirm_publish", "read_timeout", "write_timeout", "socket_settings", "connect_retries_timeout"),
        *(
            "errback",
            "callback",
            "retry_errors",
            "result_chord_ordered",
            "timeout",
            "decode_responses",
            "protocol",
        ),
    }
)
"""Options about connections and outages, which celeriac sees to itself."""

_KNOWN_IN_URLS = frozenset(
    {
        "global_keyprefix",
        "client_name",
        "db",
        "virtual_host",
        "master_name",
        "fanout_prefix",
        "fanout_patterns",
    }
)
_AMQP_IN_URLS = frozenset({"heartbeat", "connection_name", "declare", "queue_type", "max_priority"})


_ENDS_LOGIN = re.compile(r"[/?#]")
_QUERY = re.compile(r"(^|\?)\w+=[^#]*$")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one server besides its URLs.

    :param name: the setting to name in departures.
    :param options: the transport options, which are left to the settings where they are no part of a URL.
    :param tls: Celery's ``broker_use_ssl`` or ``redis_backend_use_ssl``.
    :param host: what the URL leaves open, as ``broker_host`` and its like say it.
    """

    name: str
    options: Mapping[str, Any] = {}
    options_name: str = ""
    tls: Any = None
    tls_name: str = ""
    scheme: str = ""
    host: str = ""
    port: int | None = None
    username: str = ""
    password: str = ""
    path: str = ""
    heartbeat: float | None = None


def broker_url(urls: str | Sequence[str] | None, place: Place, note: Callable[[Departure], None]) -> str:
    """Return the URL of a broker, ``""`` where celeriac has none of that kind; each departure is noted."""
    if not urls and not place.host:
        urls = "" if place.scheme else DEFAULT_BROKER
    return _url(_listed(urls), place, BROKER_SCHEMES, note)


def result_url(urls: str | Sequence[str], place: Place, note: Callable[[Departure], None]) -> str:
    """Return the URL of a result store, ``""`` where celeriac has none of that kind; each departure is noted."""
    return _url(_listed(urls), place, BACKEND_SCHEMES, note)


def scheme_in(url: str) -> str:
    """Return the scheme of a URL in lower case; of what has none the whole."""
    return url.partition("://")[0].strip().lower()


def _listed(urls: str | Sequence[str] | None) -> list[str]:
    given = urls.split(";") if isinstance(urls, str) else list(urls or ())
    return [url.strip() for url in given if url.strip()] or [""]


def _url(urls: Sequence[str], place: Place, known: Iterable[str], note: Callable[[Departure], None]) -> str:
    scheme = scheme_in(urls[0]) if "://" in urls[0] else place.scheme.lower() or "amqp"
    if scheme not in known:
        return ""
    if scheme in ("sqlite", "db+sqlite", "memory", "disabled"):
        (url,) = _of_one_server(urls, scheme, place, note)
        return url if "://" in url else f"{scheme}://"
    # Nodes after the first may leave the scheme out, as kombu has it.
    named = [url if "://" in url else f"{scheme}://{url}" for url in urls]
    parts = [_taken_apart(url, place.name) for url in _of_one_server(named, scheme, place, note)]
    options = _options(scheme, parts, place, note)
    if (scheme in _WITH_TLS and place.tls) or scheme in _TLS_SCHEMES:
        scheme = _WITH_TLS.get(scheme, scheme)
        options |= _tls_options(place, note)
        if options.get("ssl_cert_reqs") == "none":
            options.pop("ssl_check_hostname", None)
    else:
        options = {name: value for name, value in options.items() if name not in TLS_OPTIONS}
    query = f"?{urlencode(options)}" if options else ""
    return ";".join(_written(scheme, part, place) for part in parts) + query


def _of_one_server(
    urls: Sequence[str], scheme: str, place: Place, note: Callable[[Departure], None]
) -> Sequence[str]:
    """Return the URLs of the first server: nodes of one RabbitMQ, sentinels of one Redis, or one URL."""
    peers = next((peers for peers in (_RABBITMQ, _SENTINELS) if scheme in peers), None)
    found = [url for url in urls if scheme_in(url) in peers] if peers else urls[:1]
    if len(found) < len(urls):
        text = f"{place.name} names {len(urls)} servers, of which celeriac uses the first alone"
        if place.name != "result_backend":
            text += ", while Celery's clients send to another one when that is away: start a worker with -b for each"
        note(Departure("warn", place.name, f"{text}; for failover of one Redis name its sentinels"))
    return found


def _taken_apart(url: str, setting: str) -> urlparts:
    """Return the parts of a URL as kombu sees them. Raises ``ConfigError``, which shows no secret."""
    parts = _as_kombu_sees_it(url)
    if parts is None or _hides_login(url):
        try:
            take_apart(url)
        except ConfigError as error:
            raise ConfigError(f"{setting}: {error}") from None
        raise ConfigError(f"{setting}: {masked(url)} is no URL that Celery can read")
    return parts


def _as_kombu_sees_it(url: str) -> urlparts | None:
    """Return its parts, ``None`` for what is no URL: the error of that shows what stands in place of the port."""
    try:
        return url_to_parts(url)
    except ValueError:
        return None


def _hides_login(url: str) -> bool:
    """Whether the ``@`` of a login stands behind a character that ends the login."""
    place, _, rest = _ENDS_LOGIN.sub("\n", url.partition("://")[2], count=1).partition("\n")
    return "@" not in place and "@" in _QUERY.sub("", rest) and "socket" not in url and url[:4] != "unix"


def _written(scheme: str, part: urlparts, place: Place) -> str:
    username, password = part.username or place.username, part.password or place.password
    login = f"{quote(username, safe='')}:{quote(password, safe='')}@" if password else ""
    if username and not password:
        login = f"{quote(username, safe='')}@"
    host = part.hostname or place.host
    host = f"[{host}]" if ":" in host else host
    port = part.port or place.port
    path = part.path or place.path
    if scheme in AMQP_SCHEMES or scheme == "rpc":
        path = "" if path == "/" else path
    # A Unix socket's path has slashes of its own.
    safe = "/" if "socket" in scheme or scheme == "unix" else ""
    return f"{scheme}://{login}{host}{f':{port}' if port else ''}/{quote(path.strip('/') if safe else path, safe=safe)}"


def _options(
    scheme: str, parts: Sequence[urlparts], place: Place, note: Callable[[Departure], None]
) -> dict[str, str]:
    """Return what goes into the URL's query: its own options, and those transport options that belong there."""
    found: dict[str, str] = {}
    is_amqp = scheme in _RABBITMQ
    allowed = {*TLS_OPTIONS, *(_AMQP_IN_URLS if is_amqp else _KNOWN_IN_URLS)}
    for part in parts:
        for name, value in part.query.items():
            if name in allowed:
                found[name] = _mode(value) if name == "ssl_cert_reqs" else value
            elif name not in _LEFT_TO_US:
                note(Departure("warn", place.name, f"the option {name} of its URL is not known: take it out"))
    if is_amqp:
        if place.heartbeat is not None and place.name != "result_backend":
            found.setdefault("heartbeat", f"{place.heartbeat:g}")
        return found
    return found | _redis_options(place.options, with_sentinels=scheme in _SENTINELS)


def _redis_options(options: Mapping[str, Any], *, with_sentinels: bool) -> dict[str, str]:
    names = ("global_keyprefix", "client_name", *(("master_name",) if with_sentinels else ()))
    found = {name: str(options[name]) for name in names if options.get(name)}
    for name in ("fanout_prefix", "fanout_patterns"):
        if name in options:
            found[name] = (
                options[name] if isinstance(options[name], str) else str(bool(options[name])).lower()
            )
    login = options.get("sentinel_kwargs") or {}
    if with_sentinels:
        found |= {
            f"sentinel_{name}": str(login[name]) for name in ("username", "password") if login.get(name)
        }
    return found


def _tls_options(place: Place, note: Callable[[Departure], None]) -> dict[str, str]:
    """Return a TLS dictionary of kombu's, with or without ``ssl_`` before its names, as options of a URL."""
    if not isinstance(place.tls, Mapping):
        return {}
    found: dict[str, str] = {}
    for given, value in place.tls.items():
        name = f"ssl_{str(given).removeprefix('ssl_')}"
        if value is None or name in ("ssl_version", "ssl_min_version"):
            continue  # TLS 1.2 and newer
        if name == "ssl_cert_reqs":
            found[name] = _mode(value)
        elif name == "ssl_check_hostname":
            found[name] = "true" if value else "false"
        elif name in TLS_OPTIONS:
            found[name] = str(value)
        else:
            text = f"{given!r} in it is not known: known are {', '.join(TLS_OPTIONS)}"
            note(Departure("warn", place.tls_name, text))
    return found


def _mode(value: Any) -> str:
    return _MODES.get(value, "") if isinstance(value, int) else str(value).lower().removeprefix("cert_")


def note_options(place: Place, known: Iterable[str], note: Callable[[Departure], None]) -> None:
    """Note the transport options that nothing here goes by."""
    understood = {*known, *_LEFT_TO_US, "global_keyprefix", "client_name", "master_name", "sentinel_kwargs"}
    for name in place.options:
        if name not in understood:
            note(Departure("warn", place.options_name, f"{name!r} in it has no effect: take it out"))
