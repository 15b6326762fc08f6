"""A real broker and a real result store, as an app opens them."""

from celeriac.clock import SystemClock
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.contracts.server import Terms
from celeriac.servers.urls import broker_server, result_server
from celeriac.settings import Settings
from celeriac.wire.content import Codecs


def open_both(url: str, results: str, settings: Settings) -> tuple[Broker, Backend]:
    """Return what the URLs name; what is on one server shares it."""
    terms = Terms(settings, Codecs(), SystemClock())
    server = broker_server(url, terms)()
    backend = server.results(results)
    if backend is None:
        backend = result_server(results, terms)().results(results)
    assert backend is not None
    return server.broker, backend
