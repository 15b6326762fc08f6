"""The pages in a real Chromium: as others see them, without scripts, by keys, in both themes."""

import html
import uuid

import pytest
from axe_playwright_python.sync_playwright import Axe
from celery import Celery
from playwright.sync_api import Browser, Page, Response, expect

from celeriac.web.pages import PAGES
from tests.web.conftest import wait_until
from tests.web.site import PATIENCE, Site

# A browser looks at a dozen pages; on a busy machine each takes seconds.

SIZES = {"wide": (1280, 800), "narrow": (390, 800)}
PATHS = [path.lstrip("/") for path in PAGES if "{" not in path]


@pytest.fixture(scope="module")
def failed(site: Site, shop: Celery) -> str:
    """The id of a task that failed."""
    id = shop.send_task("tests.web.shop.fail", ["<script>document.title = 'taken'</script> \u202e"]).id
    site.told(id, "FAILURE")
    return str(id)


def opened(chromium: Browser, site: Site, path: str, **options: object) -> tuple[Page, list[str]]:
    """A page, and what its console says of errors."""
    page = chromium.new_page(**options)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE * 1000)
    errors = list[str]()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: foreign(request.url, site) and errors.append(f"asks {request.url}"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{site.port}/{path}")
    return page, errors


def foreign(url: str, site: Site) -> bool:
    """Whether a page asks for something elsewhere."""
    return not url.startswith((f"http://127.0.0.1:{site.port}/", "data:"))


# Contrast is the theme's matter, and what fits the width's.
@pytest.mark.parametrize(("scheme", "size"), [("light", "wide"), ("dark", "narrow")])
def test_every_page_is_accessible_and_says_nothing_on_the_console(
    chromium: Browser, site: Site, shop: Celery, failed: str, scheme: str, size: str
):
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    shop.send_task("shop.wait", [1], queue="waiting")
    site.shows("queues", "waiting")
    for path in [*PATHS, f"tasks/{failed}", "queues/celery", "queues/waiting", "workers/shop@test"]:
        page, errors = opened(chromium, site, path, color_scheme=scheme, viewport=viewport)
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert errors == [], path
        page.close()


def test_data_of_tasks_is_only_text(chromium: Browser, site: Site, failed: str):
    for path in ("errors", f"tasks/{failed}", "tasks"):
        page, errors = opened(chromium, site, path)
        assert page.title() != "taken"
        assert errors == []
        page.close()
    assert "<script>document.title" in html.unescape(site.page(f"tasks/{failed}"))


def test_without_scripts_a_task_runs_again(chromium: Browser, site: Site, shop: Celery):
    text = uuid.uuid4().hex
    id = shop.send_task("tests.web.shop.fail", [text]).id
    site.told(id, "FAILURE")
    page, _ = opened(chromium, site, f"tasks/{id}", java_script_enabled=False)
    page.get_by_role("button", name="Run again").first.click()
    assert "1 task sent again" in page.get_by_role("status").inner_text()
    page.close()
    site.when(f"tasks?text={text}", lambda page: page.count("FAILURE</span>") == 2, "two tasks that failed")


def test_without_scripts_a_waiting_task_is_deleted_and_its_queue_paused(
    chromium: Browser, site: Site, shop: Celery
):
    queue = f"orders-{uuid.uuid4().hex}"
    ids = [shop.send_task("shop.ship", [number], queue=queue).id for number in range(2)]
    site.shows("queues", queue)
    page, _ = opened(chromium, site, f"queues/{queue}", java_script_enabled=False)
    page.get_by_label(f"choose {ids[0]}").check()
    page.get_by_role("button", name="Delete", exact=True).click()
    assert "1 waiting task of queue" in page.get_by_role("status").inner_text()
    assert (page.get_by_text(ids[0]).count(), page.get_by_text(ids[1]).count()) == (0, 1)
    page.get_by_role("button", name="Pause").click()
    assert "is paused" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Resume").click()
    assert "goes on" in page.get_by_role("status").inner_text()
    page.close()


def test_a_hidden_tab_has_no_stream(chromium: Browser, site: Site):
    page, _ = opened(chromium, site, "tasks")
    wait_until(page, "source !== null && source.readyState === EventSource.OPEN")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(f"window.before = source; {hide % 'true'}")
    assert page.evaluate("source === null && window.before.readyState === EventSource.CLOSED")
    page.evaluate(hide % "false")
    wait_until(page, "source !== null && source.readyState === EventSource.OPEN")
    page.close()


def test_a_double_click_and_a_reload_run_a_task_once(chromium: Browser, site: Site, shop: Celery):
    text = uuid.uuid4().hex
    id = shop.send_task("tests.web.shop.fail", [text]).id
    site.told(id, "FAILURE")
    page, _ = opened(chromium, site, f"tasks/{id}")
    page.get_by_role("button", name="Run again").first.dblclick()
    page.get_by_role("status").wait_for()
    page.reload()
    found = site.when(f"tasks?text={text}", lambda page: page.count("FAILURE</span>") >= 2, "two failures")
    last = shop.send_task("tests.web.shop.fail", [f"{text} last"]).id
    site.told(last, "FAILURE")  # whatever was sent before it has ended, as there is one worker with one slot
    found = site.page(f"tasks?text={text}")
    assert found.count("FAILURE</span>") == 3
    page.close()


def test_an_open_page_follows_and_a_chosen_task_stays_chosen(chromium: Browser, site: Site, shop: Celery):
    text = uuid.uuid4().hex
    page, errors = opened(chromium, site, f"tasks?text={text}")
    for _ in range(2):
        shop.send_task("tests.web.shop.fail", [text])
    expect(page.locator("tbody input")).to_have_count(2)
    page.keyboard.press("j")
    page.keyboard.press("x")
    shop.send_task("tests.web.shop.fail", [text])
    site.when(f"tasks?text={text}", lambda page: page.count("FAILURE</span>") == 3, "three tasks that failed")
    assert page.locator("tbody input:checked").count() == 1
    assert errors == []
    page.close()


def test_a_task_runs_again_by_keys(chromium: Browser, site: Site, shop: Celery):
    text = uuid.uuid4().hex
    site.told(shop.send_task("tests.web.shop.fail", [text]).id, "FAILURE")
    page, errors = opened(chromium, site, f"tasks?text={text}")
    page.keyboard.press("r")  # nothing is chosen
    page.keyboard.press("j")
    site.told(shop.send_task("tests.web.shop.fail", [text]).id, "FAILURE")
    expect(page.locator("main tbody tr")).to_have_count(2)  # the page has changed under the chosen row
    page.keyboard.press("x")
    page.keyboard.press("r")
    expect(page.get_by_role("status")).to_contain_text("1 task sent again")
    assert errors == []
    page.close()


def test_the_theme_is_remembered(chromium: Browser, site: Site):
    page, _ = opened(chromium, site, "")
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()


def test_a_page_is_small(chromium: Browser, site: Site):
    page = chromium.new_page()
    answers = list[Response]()
    page.on("response", lambda response: answers.append(response) if "live" not in response.url else None)
    with page.expect_response("**/page.js"), page.expect_response("**/style.css"):
        page.goto(f"http://127.0.0.1:{site.port}/about")
    page.wait_for_load_state("load")
    assert len(answers) >= 3
    assert 0 < sum(len(answer.body()) for answer in answers) < 200_000
    page.close()
