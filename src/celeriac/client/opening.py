"""Opens the connections of an app, once for each event loop; broker and results on one server share them."""

from __future__ import annotations

from functools import partial

from celeriac.client.connections import Connections
from celeriac.client.environment import BACKEND_VARIABLES, BROKER_VARIABLES, Said
from celeriac.client.publisher import Publisher
from celeriac.client.requests import Requests
from celeriac.client.send_listeners import SendListeners
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.contracts.server import OnServer, Server, Settling, Terms
from celeriac.servers.urls import OpenServer, broker_server, result_server


class Opener:
    """Opens connections each time that it is called.

    :param broker: as the app was given it, and ``backend`` likewise; one that is an object is used as it is.
    :param urls: those of broker and result store, where they are not objects.
    :param listeners: those of sending.
    """

    def __init__(
        self,
        broker: str | Broker | None,
        backend: str | Backend | None,
        urls: tuple[str, str],
        terms: Terms,
        listeners: SendListeners,
    ) -> None:
        broker_url, self._url = urls
        self._terms = terms
        self._listeners = listeners
        self._broker = broker if not isinstance(broker, str | None) else None
        self._backend = backend if not isinstance(backend, str | None) else None
        self._open_broker: OpenServer | None = None
        self._open_results: OpenServer | None = None
        if self._broker is None:
            said = Said(BROKER_VARIABLES)
            make = partial(broker_server, broker_url, terms)
            self._open_broker = said.opener(make, "broker") if broker is None and said.url else make()
        if self._backend is None:
            said = Said(BACKEND_VARIABLES)
            make = partial(result_server, self._url, terms)
            self._open_results = said.opener(make, "backend") if backend is None and said.url else make()

    def __call__(self) -> Connections:
        owned: list[Server] = []
        broker, backend = self._broker, self._backend
        if self._open_broker is not None:
            owned.append(self._open_broker())
            broker = owned[0].broker
        assert broker is not None
        if self._open_results is not None:
            backend = self._results(broker, owned)
        assert backend is not None
        terms = self._terms
        publisher = Publisher(broker, terms.codecs, terms.settings, terms.clock, self._listeners)
        settlements = broker.settlements(backend) if isinstance(broker, Settling) else None
        settings = terms.settings
        requests = Requests(
            getattr(broker, "fanout", None),
            terms.codecs,
            namespace=settings.control_exchange,
            serializer=settings.serializer,
            tells_revoked=bool(settings.remote_control),
        )
        return Connections(broker, backend, publisher, tuple(owned), settlements, requests)

    def _results(self, broker: Broker, owned: list[Server]) -> Backend:
        """Return the result store of the broker's server, or that of another server, which is added to the owned."""
        for server in tuple(owned):
            if (results := server.results(self._url)) is not None:
                return results
        assert self._open_results is not None
        server = self._open_results(broker.connections if isinstance(broker, OnServer) else None)
        owned.append(server)
        results = server.results(self._url)
        assert results is not None, "a server keeps the results of its own URL"
        return results
