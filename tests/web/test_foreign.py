"""What a page of another site can do in a real Chromium, without a password and with a known one: nothing."""

import base64
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from celery import Celery
from playwright.sync_api import Browser, BrowserContext, Page

from celeriac.web.access import hash_password
from redis import Redis
from tests.web.site import PATIENCE, Site

NAME, PASSWORD = "ann", "geheim"


class Evil(BaseHTTPRequestHandler):
    """A page of another site that would like to empty a queue."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<form method=post><input name=action value=purge><input name=queue></form>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def evil() -> Iterator[int]:
    """The port of another site on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(params=["open", "with a password"])
def target(request: pytest.FixtureRequest, site: Site, fleet: str, tmp_path: Path) -> Iterator[Site]:
    """The dashboard that is attacked."""
    if request.param == "open":
        yield site
        return
    with Site(fleet, tmp_path, [f"--user={NAME}:write:{hash_password(PASSWORD)}"]) as guarded:
        coded = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
        assert guarded.ask("GET", "about")[0] == 401
        assert guarded.ask("GET", "about", headers={"Authorization": f"Basic {coded}"})[0] == 200
        yield guarded


@pytest.fixture
def victim(chromium: Browser, target: Site) -> Iterator[BrowserContext]:
    """A browser that has the dashboard open, and gives the password to whoever asks for it."""
    context = chromium.new_context(http_credentials={"username": NAME, "password": PASSWORD})
    context.set_default_timeout(PATIENCE * 1000)
    answer = context.new_page().goto(f"http://127.0.0.1:{target.port}/about")
    assert answer is not None
    assert answer.status == 200
    yield context
    context.close()


def waiting(fleet: str, queue: str) -> int:
    with Redis.from_url(fleet) as redis:
        return int(redis.llen(queue))  # type: ignore[arg-type]


def attack(page: Page, port: int, queue: str) -> int:
    """Try everything that a page can send to another site; return the status of the form's answer."""
    url = f"http://127.0.0.1:{port}/do/queues"
    page.evaluate(
        """([url, queue]) => Promise.allSettled([
            fetch(url, {method: "POST", mode: "no-cors", credentials: "include",
                        body: new URLSearchParams({action: "purge", queue})}),
            fetch(url, {method: "POST", body: new URLSearchParams({action: "purge", queue})}),
            fetch(url, {method: "POST", headers: {"Authorization": "Bearer x"},
                        body: new URLSearchParams({action: "purge", queue})}),
            new Promise((done) => { const image = new Image(); image.onerror = done; image.src = url; }),
            new Promise((done) => { new WebSocket(url.replace("http", "ws")).onerror = done; }),
        ])""",
        [url, queue],
    )
    with page.expect_navigation() as gone:
        page.evaluate(
            """([url, queue]) => {
                const form = document.forms[0];
                form.action = url;
                form.elements.queue.value = queue;
                form.submit();
            }""",
            [url, queue],
        )
    assert gone.value is not None
    return gone.value.status


# A page on another port of the same name is same-site, one under another name is cross-site.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example"])
def test_a_page_of_another_site_does_nothing(
    victim: BrowserContext, target: Site, shop: Celery, fleet: str, evil: int, host: str
):
    queue = f"orders-{uuid.uuid4().hex}"
    shop.send_task("shop.ship", queue=queue)
    page = victim.new_page()
    page.goto(f"http://{host}:{evil}/")
    assert attack(page, target.port, queue) == 403
    assert waiting(fleet, queue) == 1
    assert "Traceback" not in target.process.output


def test_a_foreign_name_that_leads_here_shows_and_does_nothing(
    victim: BrowserContext, target: Site, shop: Celery, fleet: str
):
    queue = f"orders-{uuid.uuid4().hex}"
    shop.send_task("shop.ship", queue=queue)
    page = victim.new_page()
    answer = page.goto(f"http://evil.example:{target.port}/tasks")
    assert answer is not None
    assert answer.status == 403
    # To the browser this page and the dashboard are one site now.
    statuses = page.evaluate(
        """(queue) => Promise.all(["/do/queues", "/queues"].map((url) => fetch(url, url === "/queues" ? {} : {
            method: "POST", headers: {"X-Forwarded-User": "ann"}, body: new URLSearchParams({action: "purge", queue}),
        }).then((answer) => answer.status)))""",
        queue,
    )
    assert statuses == [403, 403]
    assert waiting(fleet, queue) == 1


def test_a_header_that_names_the_user_is_not_believed_from_a_foreign_name(fleet: str, tmp_path: Path):
    with Site(fleet, tmp_path, ["--trust-header=X-Forwarded-User", "--host-allowed=ops.example"]) as site:

        def status(host: str) -> int:
            return site.ask("GET", "about", headers={"Host": host, "X-Forwarded-User": "ann"})[0]

        assert [
            status(host) for host in ("ops.example", "localhost:5555", "192.0.2.7", "[2001:db8::1]:80")
        ] == [*4 * [200]]
        assert [status(host) for host in ("evil.example", "ops.example.evil", "")] == 3 * [403]
