"""URLs of brokers and result stores: taken apart in one way, and shown without their secrets.

Rules: what can be read in two ways is refused, never guessed, since a password with an unescaped character would make
another host of its rest; an error shows a URL only as ``masked`` does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from celeriac.errors import ConfigError

ESCAPES = "%23 for #, %2F for /, %3A for :, %3B for ;, %3F for ?, %40 for @, %5B for [, %5D for ]"
"""What stands for the characters that mean something in a URL (RFC 3986, section 2.1)."""

FILE_SCHEMES = ("sqlite", "db+sqlite")

_HOST = r"\[[\w:.%]+\]|[\w.%~-]*"
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<login>[^/?#\[\]\s]*)@)?"
    rf"(?P<host>{_HOST})(?::(?P<port>\d*))?"
    r"(?P<path>/[^?#@]*)?"
    r"(?:\?(?P<query>[^?#@]*))?",
    re.IGNORECASE,
)
SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)
_SECOND = re.compile(r";\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_TAIL = re.compile(rf"(?:{_HOST})(?::\d*)?(?:/[\w.-]*)?")
_OPTIONS = re.compile(r"[?&;][\w-]*=|://[\w.%~-]+(?::\d+)?(?:/[\w.-]*)?\?")
_BARE = re.compile(r"[\w.-]+(?::\d+)?")
_PATH = re.compile(r"/(?!.*:.*@)[^\x00-\x1f\x7f?#]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHOWN_OPTIONS = frozenset(
    {
        *("db", "virtual_host", "client_name", "global_keyprefix", "master_name", "sentinel_username"),
        *("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"),
        *("schema", "application_name", "connect_timeout", "sslmode", "sslrootcert", "sslcert", "sslkey"),
        *("heartbeat", "connection_name", "declare", "queue_type", "max_priority"),
    }
)
"""Options of which the value may be shown; any other may be a secret."""

_PASSWORD_OPTION = re.compile(r"[a-z_]*password")
_OPTION_NAME = re.compile(r"[a-z][a-z_]{0,40}")


class UrlParts(msgspec.Struct, frozen=True):
    """One URL, taken apart and percent-decoded.

    :param scheme: in lower case.
    :param host: in lower case; empty where the URL names none.
    :param path: with its first slash; empty where there is none.
    """

    scheme: str
    username: str | None
    password: str | None
    host: str
    port: int | None
    path: str
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scheme}://{self.host}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # what prints fields one by one prints none


def scheme_of(url: str) -> str:
    """Return the scheme in lower case, ``""`` where there is none."""
    match = SCHEME.match(url.strip())
    return match["scheme"].lower() if match else ""


def take_apart(url: str) -> tuple[UrlParts, ...]:
    """Return the parts of a server's URL, and of the others that follow after ``;``.

    Raises ``ConfigError``, which shows no secret, for what is no URL or can be read in two ways.
    """
    parts = tuple(_take_apart(text.strip(), url) for text in url.split(";") if text.strip())
    if not parts:
        raise ConfigError("an empty text is no URL: write one such as redis://host:6379/0")
    return parts


def options_of(parts: tuple[UrlParts, ...]) -> dict[str, str]:
    """Return the options of all parts. Raises ``ConfigError`` where one is given twice, differently."""
    options: dict[str, str] = {}
    for part in parts:
        for name, value in part.options.items():
            if options.setdefault(name, value) != value:
                raise _two_values(name, part.scheme)
    return options


def file_of(url: str) -> str:
    """Return the file of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, percent-decoded.

    Raises ``ConfigError`` where no file is named, and for options, which a file has none of.
    """
    scheme, _, rest = url.strip().partition("://")
    path = unquote(rest[1:])
    if not rest.startswith("/") or not path or path == ":memory:" or scheme.lower() not in FILE_SCHEMES:
        raise ConfigError(
            f"{masked(url)!r} names no file: write sqlite:///shop.db (relative) or sqlite:////var/lib/shop.db "
            "(absolute); memory:// keeps everything in this process"
        )
    if _SECOND.search(rest):
        raise ConfigError(
            f"{masked(url)!r} names several servers: give one; for a file name with ; write %3B"
        )
    if "?" in rest or "#" in rest:
        raise ConfigError(
            f"{masked(url)!r}: a file has no options here; for a file name with ? or # write %3F or %23"
        )
    if _CONTROL.search(path):
        raise ConfigError(f"{masked(url)!r} holds a control character: name another file")
    return path


def unknown_option(scheme: str, options: Mapping[str, str], known: Collection[str]) -> ConfigError | None:
    """Return the error for an option that is none of the known, ``None`` where there is no such option."""
    name = next((name for name in options if name not in known), None)
    if name is None:
        return None
    # What has no value, or is no word, may be the rest of a password.
    shown = (
        repr(name) if options[name] and _OPTION_NAME.fullmatch(name) else "(not shown: it may be a secret)"
    )
    return ConfigError(f"unknown option {shown} in a {scheme}:// URL; known are {', '.join(sorted(known))}")


def masked(url: str) -> str:
    """Return the URL, or what was meant to be one, in one line and with ``***`` for whatever may be a secret."""
    url = url.strip()
    scheme = SCHEME.match(url)
    if scheme is None:
        return url if _BARE.fullmatch(url) or not url else f"***{_tail(url)}"
    if scheme["scheme"].lower() in FILE_SCHEMES and _PATH.fullmatch(url, scheme.end()):
        return url
    texts = [text.strip() for text in url.split(";") if text.strip()]
    found = [_URL.fullmatch(text) for text in texts]
    if all(found) and not _CONTROL.search(url):
        return ";".join(_masked(match) for match in found if match is not None)
    return f"{scheme.group()}***{_tail(url)}"


def _take_apart(text: str, url: str) -> UrlParts:
    match = _URL.fullmatch(text)
    if match is None or _CONTROL.search(text):
        raise ConfigError(f"{masked(url)}: {_reason(text)}")
    port = int(match["port"][:6]) if match["port"] else None
    if port is not None and port > 65535:
        raise ConfigError(_bad_port(match["scheme"]))
    username, colon, password = (match["login"] or "").partition(":")
    pairs = parse_qsl(match["query"] or "", keep_blank_values=True)
    options = dict(pairs)
    for name, value in pairs:
        if options[name] != value:
            raise _two_values(name, match["scheme"])
    return UrlParts(
        scheme=match["scheme"].lower(),
        username=unquote(username) or None,
        password=(unquote(password) or None) if colon else None,
        host=unquote(match["host"].strip("[]")).lower(),
        port=port,
        path=unquote(match["path"] or ""),
        options=options,
    )


def _reason(text: str) -> str:
    """Say why this is no URL, without its secrets."""
    found = SCHEME.match(text)
    if found is None:
        return "a URL begins with a scheme, such as redis://host:6379/0"
    scheme, rest = found["scheme"], text[found.end() :]
    if _CONTROL.search(text):
        return "the URL holds a control character, such as the end of a line: take it out"
    login, at, place = rest.rpartition("@")
    if "#" in rest or (at and re.search(r"[/?#\[\]\s@]", login)):
        return f"in user, password, names and options write {ESCAPES}"
    if re.fullmatch(rf"(?:{_HOST}):[^/?]*(?:[/?].*)?", place):
        return _bad_port(scheme)
    return f"this is no URL such as {scheme}://user:password@host:port; in user, password and names write {ESCAPES}"


def _two_values(name: str, scheme: str) -> ConfigError:
    which = repr(name) if _OPTION_NAME.fullmatch(name) else "an option"
    return ConfigError(f"{which} has two values in one {scheme}:// URL: give one")


def _bad_port(scheme: str) -> str:
    return f"the port in a {scheme}:// URL is not a number from 0 to 65535"


def _masked(match: re.Match[str]) -> str:
    username, colon, _ = (match["login"] or "").partition(":")
    # A name alone may be a password that lost its colon.
    login = "" if match["login"] is None else f"{username}:***@" if colon else "***@"
    port = "" if match["port"] is None else f":{match['port']}"
    query = "" if match["query"] is None else f"?{_masked_options(match['query'])}"
    return f"{match['scheme']}://{login}{match['host']}{port}{match['path'] or ''}{query}"


def _masked_options(query: str) -> str:
    shown = []
    for pair in query.split("&"):
        name, equals, _ = pair.partition("=")
        known = name if _PASSWORD_OPTION.fullmatch(name) else "***"
        shown.append(pair if name in _SHOWN_OPTIONS else f"{known}{equals}***")
    return "&".join(shown)


def _tail(url: str) -> str:
    """Return the host that stands last in what cannot be read, where it is surely one.

    What follows an ``@`` in the options may be the rest of a password: ``?sentinel_password=p@ssword``.
    """
    ahead, at, tail = url.rpartition("@")
    return f"@{tail}" if at and _TAIL.fullmatch(tail) and not _OPTIONS.search(ahead) else ""
