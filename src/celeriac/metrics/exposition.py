"""Writes snapshots in the format of Prometheus; prometheus-client is imported here, when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.errors import ConfigError
from celeriac.metrics.counts import Snapshot
from celeriac.metrics.queues import BrokerNumbers

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry, Metric


class Exposition:
    """Writes snapshots. Raises ``ConfigError`` where prometheus-client is not installed.

    :param prefix: put before every name.
    """

    def __init__(self, prefix: str = "") -> None:
        try:
            import prometheus_client

            from celeriac.metrics.families import Families
        except ImportError as error:
            raise ConfigError("metrics need prometheus-client: pip install 'celeriac[metrics]'") from error
        self._client: Any = prometheus_client
        self._families = Families(prefix)

    def families(self, snapshot: Snapshot, broker: BrokerNumbers | None) -> Iterable[Metric]:
        """Return what prometheus-client collects."""
        return self._families.of(snapshot, broker)

    def text(self, snapshot: Snapshot, broker: BrokerNumbers | None) -> tuple[bytes, str]:
        """Return the text of a scrape, and its content type."""
        return self._text(self._families.of(snapshot, broker))

    def fleet_text(
        self, hosts: Sequence[Snapshot], broker: BrokerNumbers | None, broker_up: bool | None = None
    ) -> tuple[bytes, str]:
        """Return the text of a scrape of many hosts, and its content type.

        :param broker_up: whether the broker answers; ``None`` where that is not known.
        """
        return self._text(self._families.of_fleet(hosts, broker, broker_up))

    def asgi(self, snapshot: Snapshot, broker: BrokerNumbers | None) -> Any:
        """Return an ASGI app that serves this."""
        return self._client.make_asgi_app(self._registry(self._families.of(snapshot, broker)))

    def _text(self, families: Iterable[Metric]) -> tuple[bytes, str]:
        return self._client.generate_latest(self._registry(families)), self._client.CONTENT_TYPE_LATEST

    def _registry(self, families: Iterable[Metric]) -> CollectorRegistry:
        registry: CollectorRegistry = self._client.CollectorRegistry(auto_describe=False)
        registry.register(_Fixed(list(families)))
        return registry


class _Fixed:
    """A collector of families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
