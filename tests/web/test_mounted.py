"""Under a path of another application every link, form and stream works, and that application says who comes in."""

import http.client
import os
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urljoin

import pytest
from celery import Celery

from tests.servers import LoggedProcess
from tests.servers.redis import free_port

ROOT = Path(__file__).resolve().parents[2]
ANN = {"X-User": "ann"}


@pytest.fixture(scope="module", params=["fastapi", "starlette", "asgi"])
def port(
    request: pytest.FixtureRequest, fleet: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of an application that holds the dashboard."""
    history = tmp_path_factory.mktemp("mounted") / "history.db"
    environment = {**os.environ, "WEB_TESTS_REDIS": fleet, "WEB_TESTS_HISTORY": str(history)}
    number = free_port()
    command = [sys.executable, "-m", "uvicorn", f"tests.web.mounted:{request.param}", "--port", str(number)]
    process = LoggedProcess([*command, "--timeout-graceful-shutdown", "1"], env=environment, cwd=ROOT)
    process.wait_for("Uvicorn running", timeout=60)
    yield number
    process.stop()


def ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Content-Type": "application/x-www-form-urlencoded", **sent})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, response.headers.get("location", ""), text


def test_every_link_leads_within_the_path(port: int, shop: Celery):
    queue = f"q-{uuid.uuid4().hex}"
    shop.send_task("shop.none", queue=queue)
    seen, waiting = set[str](), ["/ops/x/", f"/ops/x/queues/{queue}"]
    while waiting:
        page = waiting.pop()
        if page in seen or len(seen) > 40:
            continue
        seen.add(page)
        status, _, text = ask(port, "GET", page, X_User="ann")
        # Of a task that waits nothing is known but its message.
        assert status == 200 or "Nothing is known of task" in text, page
        for link in re.findall(r'(?:href|src|action|data-live)="([^"#]+)"', text):
            if link.startswith("data:"):
                continue
            target = urljoin(page, link)
            assert target.startswith("/ops/x/"), (page, link)
            if 'href="' + link in text and "?" not in link:
                waiting.append(target)
    assert len(seen) > 8


def test_the_application_says_who_comes_in(port: int):
    assert ask(port, "GET", "/")[2] == "the shop"
    assert ask(port, "GET", "/ops/x/tasks")[0] == 401
    assert ask(port, "GET", "/ops/x/tasks", X_User="ann", Host="shop.example")[0] == 200


def test_a_button(port: int, shop: Celery):
    queue = f"q-{uuid.uuid4().hex}"
    shop.send_task("shop.none", queue=queue)
    form = urlencode({"action": "purge", "queue": queue, "back": f"queues/{queue}"})
    status, location, _ = ask(
        port, "POST", "/ops/x/do/queues", form, X_User="ann", Sec_Fetch_Site="same-origin"
    )
    assert status == 303
    assert urljoin("/ops/x/do/queues", location).startswith(f"/ops/x/queues/{queue}?said=1%20waiting%20task")
    assert ask(port, "POST", "/ops/x/do/queues", form, X_User="ann", Sec_Fetch_Site="cross-site")[0] == 403
