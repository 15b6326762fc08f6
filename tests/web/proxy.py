"""A reverse proxy that strips a path, as nginx does for ``location /ops/x/ { proxy_pass http://127.0.0.1:5555/; }``."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.web.site import PATIENCE

PREFIX = "/ops/x"
_OF_ONE_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})


@contextmanager
def stripping_proxy(port: int) -> Iterator[int]:
    """Pass what is asked for under ``PREFIX`` on to a port without it; yield the proxy's own port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(418, "this is not the dashboard's")
                return
            length = int(self.headers.get("content-length", 0))
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP
                }
                upstream.request(
                    self.command, self.path.removeprefix(PREFIX), self.rfile.read(length), headers
                )
                self._answer(upstream.getresponse())
            except ConnectionError:
                pass  # the browser has gone, or the dashboard has ended a stream
            finally:
                upstream.close()

        def do_POST(self) -> None:
            self.do_GET()

        def _answer(self, answer: http.client.HTTPResponse) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _OF_ONE_HOP:
                    self.send_header(name, value)
            self.end_headers()
            while part := answer.read1(65536):
                self.wfile.write(part)
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
