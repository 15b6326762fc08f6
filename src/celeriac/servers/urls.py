"""From a URL to the broker or backend that it names; the only module that imports drivers, and only then.

Rules: the scheme is judged at once, the driver is imported when the connection is wanted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.clock import Clock
from celeriac.errors import ConfigError
from celeriac.servers.url_parts import SCHEME, file_of, masked
from celeriac.settings import Settings
from celeriac.wire.content import Codecs

Adapter = TypeVar("Adapter")

OpenBroker: TypeAlias = Callable[[], Broker]


class OpenBackend(Protocol):
    """Opens a backend; ``broker`` is the one it is used beside, whose connection it may share."""

    def __call__(self, broker: Broker | None = None) -> Backend: ...


REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix", "sentinel", "sentinels", "valkey", "valkeys")
AMQP_SCHEMES = ("amqp", "amqps", "pyamqp")
_RPC = re.compile(r"(?<![^;])\s*rpc://", re.IGNORECASE)
BROKER_SCHEMES = ("sqlite", *REDIS_SCHEMES, *AMQP_SCHEMES, "memory")
BACKEND_SCHEMES = ("sqlite", *REDIS_SCHEMES, "rpc", *AMQP_SCHEMES, "memory", "db+sqlite", "disabled")


def broker_opener(url: str, settings: Settings, clock: Clock) -> OpenBroker:
    """Return what opens the broker of this URL. Raises ``ConfigError`` for an unknown scheme.

    What is returned raises ``ConfigError`` when the driver is not installed, naming the extra that brings it.
    """
    scheme = scheme_of(url)
    if scheme in REDIS_SCHEMES:
        return lambda: _redis_broker(url, settings, clock)
    if scheme in AMQP_SCHEMES:
        return lambda: _amqp_broker(url, settings, clock)
    if scheme == "sqlite":
        path = file_of(url)
        return lambda: _sqlite_broker(path, settings, clock)
    if scheme == "memory":
        return _memory_broker(clock)
    raise _unknown("broker", url, scheme, BROKER_SCHEMES)


def backend_opener(url: str, settings: Settings, codecs: Codecs, clock: Clock) -> OpenBackend:
    """Return what opens the backend of this URL; as ``broker_opener``."""
    scheme = scheme_of(url)
    if scheme in REDIS_SCHEMES:
        return lambda broker=None: _redis_backend(url, settings, codecs)
    if scheme == "rpc":
        return lambda broker=None: _rpc_backend(url, broker, settings, codecs)
    if scheme in AMQP_SCHEMES:
        return lambda broker=None: _amqp_backend(url, broker, settings, codecs)
    if scheme in ("sqlite", "db+sqlite"):
        file_of(url)
        return lambda broker=None: _sql_backend(url, settings, codecs, clock)
    if scheme == "memory":
        return _memory_backend(settings, codecs, clock)
    if scheme == "disabled":
        return _disabled_backend
    raise _unknown("backend", url, scheme, BACKEND_SCHEMES)


class InOneLoop(Generic[Adapter]):
    """Opens what lives in the memory of one event loop: it would be a different place in any other."""

    def __init__(self, make: Callable[[], Adapter]) -> None:
        self._make = make
        self._adapter: Adapter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, broker: Broker | None = None) -> Adapter:
        loop = asyncio.get_running_loop()
        if self._loop is None or self._adapter is None or self._loop.is_closed():
            self._loop, self._adapter = loop, self._make()
        elif self._loop is not loop:
            raise ConfigError(
                "memory:// is in use in another event loop and cannot be shared with this one (blocking calls have a "
                "loop of their own): use sqlite:///file.db, or stay in one loop"
            )
        return self._adapter


def scheme_of(url: str) -> str:
    """Return the scheme in lower case, ``""`` where there is none."""
    match = SCHEME.match(url.strip())
    return match["scheme"].lower() if match else ""


def _redis_broker(url: str, settings: Settings, clock: Clock) -> Broker:
    try:
        from celeriac.servers.redis import RedisBroker
    except ModuleNotFoundError as error:
        raise _missing("redis", url, error) from error
    return RedisBroker(
        url,
        key_prefix=settings.key_prefix,
        lease=settings.lease,
        visibility_timeout=settings.visibility_timeout,
        timeout=settings.publish_timeout,
        clock=clock,
    )


def _redis_backend(url: str, settings: Settings, codecs: Codecs) -> Backend:
    try:
        from celeriac.servers.redis import RedisBackend
    except ModuleNotFoundError as error:
        raise _missing("redis", url, error) from error
    return RedisBackend(
        url,
        codecs,
        serializer=settings.result_serializer,
        expires=settings.result_expires,
        extended=settings.result_extended,
        key_prefix=settings.key_prefix,
        timeout=settings.publish_timeout,
    )


def _amqp_broker(url: str, settings: Settings, clock: Clock) -> Broker:
    try:
        from celeriac.servers.rabbitmq import AmqpBroker
    except ModuleNotFoundError as error:
        raise _missing("amqp", url, error) from error
    return AmqpBroker(url, priorities=settings.priorities, timeout=settings.publish_timeout, clock=clock)


def _rpc_backend(url: str, broker: Broker | None, settings: Settings, codecs: Codecs) -> Backend:
    try:
        from celeriac.servers.rabbitmq import AmqpBroker
        from celeriac.servers.rabbitmq.link import Link
        from celeriac.servers.rabbitmq.rpc_results import RpcBackend
    except ModuleNotFoundError as error:
        raise _missing("amqp", url, error) from error
    own = url.partition("://")[2][:1] not in ("", "/", "?")
    if own:
        link = Link(_RPC.sub("amqp://", url), timeout=settings.publish_timeout)
    elif isinstance(broker, AmqpBroker):
        link = broker.link
    else:
        raise ConfigError(
            f"{masked(url)!r} sends results over the connection of an amqp:// broker, and this app's broker is none: "
            "use another backend, or name a RabbitMQ, as in rpc://user:password@host/vhost"
        )
    return RpcBackend(
        link,
        codecs,
        serializer=settings.result_serializer,
        expires=settings.result_expires,
        extended=settings.result_extended,
        owned=own,
    )


def _amqp_backend(url: str, broker: Broker | None, settings: Settings, codecs: Codecs) -> Backend:
    try:
        from celeriac.servers.rabbitmq import AmqpBroker
        from celeriac.servers.rabbitmq.link import Link
        from celeriac.servers.rabbitmq.protocol.url import parse_amqp_url
        from celeriac.servers.rabbitmq.queue_results import AmqpBackend
    except ModuleNotFoundError as error:
        raise _missing("amqp", url, error) from error
    shared = isinstance(broker, AmqpBroker) and broker.link.target == parse_amqp_url(url)
    link = broker.link if shared and isinstance(broker, AmqpBroker) else None
    return AmqpBackend(
        link or Link(url, timeout=settings.publish_timeout),
        codecs,
        serializer=settings.result_serializer,
        expires=settings.result_expires,
        extended=settings.result_extended,
        owned=link is None,
    )


def _sqlite_broker(path: str, settings: Settings, clock: Clock) -> Broker:
    from celeriac.servers.sqlite import SqliteBroker

    return SqliteBroker(path, clock=clock, lease=settings.lease, group=settings.sqlite_group)


def _sql_backend(url: str, settings: Settings, codecs: Codecs, clock: Clock) -> Backend:
    from celeriac.servers.sqlite import SqlBackend

    return SqlBackend(
        url,
        codecs,
        serializer=settings.result_serializer,
        expires=settings.result_expires,
        extended=settings.result_extended,
        group=settings.sqlite_group,
        clock=clock,
    )


def _memory_broker(clock: Clock) -> OpenBroker:
    from celeriac.servers.memory.broker import MemoryBroker

    return InOneLoop(lambda: MemoryBroker(clock))


def _memory_backend(settings: Settings, codecs: Codecs, clock: Clock) -> OpenBackend:
    from celeriac.servers.memory.results import MemoryBackend

    return InOneLoop(lambda: MemoryBackend(codecs, clock, settings.result_expires))


def _disabled_backend(broker: Broker | None = None) -> Backend:
    from celeriac.servers.disabled import DisabledBackend

    return DisabledBackend()


def _missing(extra: str, url: str, error: ModuleNotFoundError) -> ConfigError:
    library = (error.name or extra).partition(".")[0]
    return ConfigError(
        f"{scheme_of(url)}:// needs {library}, which is not installed: pip install 'celeriac[{extra}]'"
    )


def _unknown(what: str, url: str, scheme: str, known: tuple[str, ...]) -> ConfigError:
    schemes = ", ".join(f"{name}://" for name in known)
    problem = (
        f"unknown scheme {scheme}:// for a {what}" if scheme else f"{what} URL {masked(url)!r} has no scheme"
    )
    return ConfigError(f"{problem}: known are {schemes}")
