"""Who may see and who may change something.

Rules: without an ``authorize`` of the user only the machine itself is answered, by a name of the loopback. Whatever
changes something must come from a page of the dashboard: the browser says so by ``Sec-Fetch-Site`` or ``Origin``,
with or without a password. A request whose ``Host`` is not allowed is refused, so that a foreign name that leads here
(DNS rebinding) reaches nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from starlette.requests import HTTPConnection

from celeriac.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that are always allowed."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_TOKEN_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_COST = {"n": 2**14, "r": 8, "p": 1}
_HASHED_AT_ONCE = 2
"""Passwords that are compared at the same time; each takes 16 MB and a processor for some 50 ms. Others wait."""


class Access(IntEnum):
    """What one may do; each includes the ones before."""

    NONE = 0
    READ = 1
    WRITE = 2


Authorize = Callable[[HTTPConnection], Access | Awaitable[Access]]
"""Says what the sender of a request may do. Its name for the log is ``connection.scope["celeriac_user"]``, if set."""


class User(msgspec.Struct, frozen=True):
    """A person with a password, or a program with a token.

    :param hashed: what ``hash_password`` or ``hash_token`` returned.
    """

    name: str
    hashed: str
    access: Access


def hash_password(password: str) -> str:
    """Return what to keep in place of a password (scrypt)."""
    salt = os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, **_COST)
    return f"scrypt:{salt.hex()}:{digest.hex()}"


def is_password(password: str, hashed: str) -> bool:
    """Whether this password was hashed so. Raises ``ConfigError`` for a text that is no hash."""
    kind, _, rest = hashed.partition(":")
    salt, _, digest = rest.partition(":")
    try:
        if kind != "scrypt":
            raise ValueError(kind)
        made = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), **_COST)
        return hmac.compare_digest(made, bytes.fromhex(digest))
    except ValueError as error:
        raise ConfigError(
            "a password's hash has the form scrypt:salt:digest; make one with: celeriac web --hash-password"
        ) from error


def by_users(users: Sequence[User]) -> Authorize:
    """Return an ``authorize`` that asks for a name and a password (HTTP Basic).

    Passwords are compared in threads of its own, so that a program that guesses slows no page. An unknown name takes as
    long as a wrong password, so that names cannot be guessed.
    """
    known = {user.name: user for user in users}
    decoy = hash_password(secrets.token_hex()) if users else ""
    proven = dict[bytes, User]()
    threads = ThreadPoolExecutor(_HASHED_AT_ONCE, "celeriac-password")

    async def authorize(connection: HTTPConnection) -> Access:
        given = _basic(connection.headers.get("authorization", "")) if users else None
        if given is None:
            return Access.NONE
        name, password = given
        # A hash takes its time on purpose; the same words need it once.
        key = hashlib.blake2b(f"{name}\0{password}".encode(), digest_size=32, key=_KEY).digest()
        user = proven.get(key)
        if user is None:
            user = known.get(name)
            hashed = decoy if user is None else user.hashed
            same = await asyncio.get_running_loop().run_in_executor(threads, is_password, password, hashed)
            if user is None or not same:
                return Access.NONE
            proven[key] = user
        connection.scope["celeriac_user"] = user.name
        return user.access

    return authorize


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return what to keep in place of a token of ``new_token``: it is long enough for a hash that takes no time."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def by_tokens(users: Sequence[User]) -> Callable[[HTTPConnection], Access]:
    """Return an ``authorize`` that asks for a token (RFC 6750: ``Authorization: Bearer``), for programs.

    Raises ``ConfigError`` for a text that is no hash of a token.
    """
    for user in users:
        if not _TOKEN_HASH.fullmatch(user.hashed):
            raise ConfigError(
                f"a token's hash has the form sha256:digest, that of {user.name} has not;"
                " make one with: celeriac web --new-token"
            )
    known = {user.hashed: user for user in users}

    def authorize(connection: HTTPConnection) -> Access:
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        user = known.get(hash_token(token.strip())) if kind.lower() == "bearer" else None
        if user is None:
            return Access.NONE
        connection.scope["celeriac_user"] = user.name
        return user.access

    return authorize


def any_of(authorizes: Sequence[Authorize]) -> Authorize:
    """Return an ``authorize`` that lets in whom one of these lets in, the first that does."""

    async def authorize(connection: HTTPConnection) -> Access:
        for one in authorizes:
            if (found := await access_of(one, connection)) > Access.NONE:
                return found
        return Access.NONE

    return authorize


async def access_of(authorize: Authorize, connection: HTTPConnection) -> Access:
    """Return what the sender of a request may do."""
    found = authorize(connection)
    return await found if isinstance(found, Awaitable) else found


def by_header(name: str, writers: Sequence[str] = ()) -> Authorize:
    """Return an ``authorize`` that trusts a proxy's header with the name of the user.

    :param writers: users who may change something; empty for all.
    """

    def authorize(connection: HTTPConnection) -> Access:
        user = connection.headers.get(name, "")
        if not user:
            return Access.NONE
        connection.scope["celeriac_user"] = user
        return Access.WRITE if not writers or user in writers else Access.READ

    return authorize


def all_access(connection: HTTPConnection) -> Access:
    """Let every user do everything: for a loopback address without users."""
    del connection
    return Access.WRITE


def refusal(method: str, headers: Mapping[str, str], allowed: Sequence[str] | None) -> str | None:
    """Return why a request is refused whoever sends it; ``None`` where it is not.

    :param headers: by names in lower case.
    :param allowed: hosts besides the loopback's and addresses that may be asked for; ``None`` for any, where a program
        that the dashboard is part of looks at that itself.
    """
    host = headers.get("host", "")
    if allowed is not None and (name := _name(host)) not in {*LOOPBACK, *allowed} and not _is_address(name):
        return f"the host {host!r:.100} is not allowed here: see --host-allowed"
    if method in _SAFE:
        return None
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site == "same-origin" else "a request from another site changes nothing here"
    origin = headers.get("origin")
    if origin is not None:
        return None if urlsplit(origin).netloc == host else "a request from another site changes nothing here"
    if headers.get("authorization", "").startswith("Bearer "):
        return None
    return "a request that changes something must say where it comes from (Sec-Fetch-Site or Origin)"


def _name(host: str) -> str:
    """Return a ``Host`` without its port."""
    return (urlsplit(f"//{host}").hostname or "") if host else ""


def _is_address(name: str) -> bool:
    """Whether it is an address: a foreign page can make its own name lead here, and no address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _basic(header: str) -> tuple[str, str] | None:
    kind, _, coded = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(coded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None


_KEY = os.urandom(32)
