"""Which event loop a command runs on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from celeriac.errors import ConfigError

try:
    import uvloop
except ImportError:  # an optional extra
    FAST: Callable[[], asyncio.AbstractEventLoop] | None = None
else:

    class _FastLoop(uvloop.Loop):
        """uvloop, whose handshakes leave no error behind when they are given up.

        uvloop connects and shakes hands in one call. Where that is cancelled after the one and before the other, the
        error of the handshake stays in a future that no code can reach, and is printed with a traceback when that is
        collected. Here the handshake is a step of its own, and its caller waits for it.
        """

        async def create_connection(  # type: ignore[override]
            self,
            protocol_factory: Callable[[], asyncio.Protocol],
            host: Any = None,
            port: Any = None,
            *,
            ssl: ssl.SSLContext | bool | None = None,
            server_hostname: str | None = None,
            ssl_handshake_timeout: float | None = None,
            ssl_shutdown_timeout: float | None = None,
            **others: Any,
        ) -> tuple[asyncio.Transport, asyncio.Protocol]:
            timeouts: dict[str, Any] = {
                "ssl_handshake_timeout": ssl_handshake_timeout,
                "ssl_shutdown_timeout": ssl_shutdown_timeout,
            }
            raw: Any
            transport: Any
            if not ssl or isinstance(ssl, bool):
                others |= timeouts | {"ssl": ssl, "server_hostname": server_hostname}
                transport, protocol = await super().create_connection(protocol_factory, host, port, **others)
                return transport, protocol
            raw, _ = await super().create_connection(asyncio.Protocol, host, port, **others)
            protocol = protocol_factory()
            name = host if server_hostname is None else server_hostname
            try:
                transport = await self.start_tls(raw, protocol, ssl, server_hostname=name, **timeouts)
            except BaseException:
                raw.abort()
                raise
            if transport.is_closing():
                raise ConnectionResetError("the connection was closed during the TLS handshake")
            protocol.connection_made(transport)
            return transport, protocol

    FAST = _FastLoop

LOOPS = ("auto", "asyncio", "uvloop")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop, ``None`` for asyncio's own; ``auto`` takes uvloop where it is installed.

    Raises ``ConfigError`` where uvloop is asked for and is not installed.
    """
    if name == "uvloop" and FAST is None:
        raise ConfigError(
            "--loop uvloop needs uvloop, which is not installed: pip install 'celeriac[uvloop]'"
        )
    return None if name == "asyncio" else FAST
