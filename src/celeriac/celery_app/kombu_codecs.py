"""Serializers that a Celery app registered with kombu itself (kombu: ``kombu.serialization.register``).

Rules: Celery's own code writes with them, messages and results alike; what is read here are the messages that a worker
takes. Those that kombu brings along are celeriac's own (``wire.content``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from kombu.serialization import loads, registry

from celeriac.errors import MalformedMessage
from celeriac.settings import Settings
from celeriac.wire.content import SERIALIZERS, Codecs
from celeriac.wire.preview import preview

_SIGNED = "application/data"


def registered(serializer: object) -> str | None:
    """Return the content type of a serializer of the app's own, by its name or type; ``None`` for any other.

    One that signs (Celery: ``setup_security``) is none: its messages are not checked here.
    """
    content_type = registry.name_to_type.get(serializer, serializer)
    if content_type in (*SERIALIZERS.values(), _SIGNED) or content_type not in registry._decoders:  # noqa: SLF001
        return None
    return str(content_type)


class KombuCodecs(Codecs):
    """Reads content of these types by the app's own code too.

    :param more: content types that are registered with kombu.
    """

    def __init__(self, settings: Settings, more: Collection[str]) -> None:
        super().__init__(
            settings.accept_content, settings.max_decompressed_size, settings.max_decompressed_ratio
        )
        self._more = frozenset(more)
        self._accepted |= self._more

    def decode(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        compression: str | None = None,
        parse: Callable[[bytes | str], Any] | None = None,
    ) -> Any:
        if content_type not in self._more:
            return super().decode(body, content_type, content_encoding, compression, parse)
        if compression:
            body = self.decompress(body, compression)
        try:
            return loads(body, content_type, content_encoding, accept=self._more)
        except BaseException as error:
            raise MalformedMessage(f"not {content_type}: {preview(error, 200)}") from error
