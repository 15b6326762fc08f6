"""Behind a proxy that strips a path, every link, button and stream leads through that proxy."""

import http.client
import re
import uuid
from collections.abc import Iterator, Mapping
from html import unescape
from urllib.parse import urlencode, urljoin

import pytest
from celery import Celery
from playwright.sync_api import Browser, expect

from celeriac.web.doing import ACTIONS
from tests.web.conftest import wait_until
from tests.web.proxy import PREFIX, stripping_proxy
from tests.web.site import PATIENCE, Site


@pytest.fixture(scope="module")
def port(site: Site) -> Iterator[int]:
    """The port of the proxy before the dashboard."""
    with stripping_proxy(site.port) as port:
        yield port


def ask(port: int, method: str, path: str, form: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Return status, where it leads, and the text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    connection.request(method, path, urlencode(form) if form is not None else None, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, response.headers.get("location", ""), text


@pytest.fixture
def queue(shop: Celery) -> str:
    """A queue in which one task waits."""
    name = f"q-{uuid.uuid4().hex}"
    shop.send_task("shop.none", queue=name)
    return name


@pytest.fixture
def failed(site: Site, shop: Celery) -> str:
    """The id of a task that failed."""
    id = str(shop.send_task("tests.web.shop.fail", [uuid.uuid4().hex]).id)
    site.told(id, "FAILURE")
    return id


def test_every_link_leads_through_it(port: int, queue: str, failed: str):
    seen, waiting = set[str](), [f"{PREFIX}/", f"{PREFIX}/queues/{queue}", f"{PREFIX}/tasks/{failed}"]
    while waiting and len(seen) < 60:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        status, _, text = ask(port, "GET", page)
        assert status == 200 or "Nothing is known of task" in text, (page, status)
        for link in re.findall(r'(?:href|src|action|data-live)="([^"#]+)"', text):
            if link.startswith("data:"):
                continue
            target = urljoin(page, unescape(link))
            assert target.startswith(f"{PREFIX}/"), (page, link)
            if f'href="{link}' in text:
                waiting.append(target)
    assert {f"{PREFIX}/{name}" for name in ("tasks", "errors", "queues", "workers", "dead", "about")} <= seen


def test_every_button_leads_back_through_it(port: int):
    for path in ACTIONS:
        status, location, _ = ask(port, "POST", f"{PREFIX}{path}", {"action": "none", "back": "about"})
        assert status == 303, path
        assert urljoin(f"{PREFIX}{path}", location).startswith(f"{PREFIX}/about?said="), (path, location)


def test_a_mistyped_address_leads_nowhere_else(port: int):
    for path in ("/tasks/", "/workers/", "/live/", "/static", "/do/tasks/", "/nothing/"):
        status, location, _ = ask(port, "GET", f"{PREFIX}{path}")
        assert status in (307, 404, 405), path
        assert not location or urljoin(f"{PREFIX}{path}", location).startswith(f"{PREFIX}/"), (path, location)


def test_the_buttons_do_what_they_say(port: int, site: Site, queue: str, failed: str):
    form = {"action": "purge", "queue": queue, "back": f"queues/{queue}"}
    _, location, _ = ask(port, "POST", f"{PREFIX}/do/queues", form)
    status, _, page = ask(port, "GET", urljoin(f"{PREFIX}/do/queues", location))
    assert (status, "1 waiting task" in page, "0 tasks wait" in page) == (200, True, True)
    form = {"action": "retry", "id": failed, "back": f"tasks/{failed}"}
    _, location, _ = ask(port, "POST", f"{PREFIX}/do/tasks", form)
    status, _, page = ask(port, "GET", urljoin(f"{PREFIX}/do/tasks", location))
    assert (status, "1 task sent again" in page) == (200, True)


def test_in_a_browser_pages_follow_and_buttons_work(chromium: Browser, port: int, site: Site, shop: Celery):
    text = uuid.uuid4().hex
    page = chromium.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    errors = list[str]()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{port}{PREFIX}/")
    page.get_by_role("link", name="Tasks").click()
    page.locator("#search").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/tasks?text={text}")
    wait_until(page, "source !== null && source.readyState === EventSource.OPEN")
    site.told(shop.send_task("tests.web.shop.fail", [text]).id, "FAILURE")
    expect(page.locator("tbody input")).to_have_count(1)
    page.locator("tbody a").click()
    page.get_by_role("button", name="Run again").first.click()
    expect(page.get_by_role("status")).to_contain_text("1 task sent again")
    assert page.url.startswith(f"http://127.0.0.1:{port}{PREFIX}/tasks/")
    assert errors == []
    page.close()
