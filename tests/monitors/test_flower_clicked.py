"""Flower clicked in a real browser, and the dashboard beside it, on the same fleet: both see it, and both steer it."""

import asyncio
import shutil
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from celeriac import Celeriac
from tests.monitors.test_flower import NODE, PATIENCE, Flower, start_worker
from tests.servers import LoggedProcess, RedisServer
from tests.web.site import Site


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def flower(server: RedisServer) -> Iterator[Flower]:
    with Flower(server.url()) as flower:
        yield flower


@pytest.fixture(scope="module")
def site(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(server.url(), tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def worker(server: RedisServer, flower: Flower, site: Site) -> Iterator[LoggedProcess]:
    worker = start_worker(server, NODE, "-E", "-l", "critical")
    site.shows("workers", NODE)
    yield worker
    worker.kill()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    where = shutil.which("chromium")
    assert where, "the tests need chromium on the PATH; run make test, or: sudo apt-get install chromium"
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE * 1000)
        browser = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        yield browser
        browser.close()


def elsewhere(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it in another thread: Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def asked(server: RedisServer, method: str, **arguments: Any) -> Any:
    """What the worker answers."""

    async def whole() -> Any:
        async with Celeriac("asking", server.url()) as app:
            told = await app.control.ask(method, arguments, destination=[NODE], timeout=PATIENCE)
            return told.by_node[NODE]

    return elsewhere(whole())


def sent(server: RedisServer, task: str, *args: object) -> str:
    async def whole() -> str:
        async with Celeriac("sending", server.url(), default_queue="celery") as app:
            return (await app.send_task(task, args)).id

    id: str = elsewhere(whole())
    return id


def opened(chromium: Browser, flower: Flower, path: str) -> Page:
    page = chromium.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(f"{flower.address}{path}")
    return page


def said(page: Page, text: str) -> None:
    """Wait until Flower says what it has done."""
    expect(page.locator(".toast", has_text=text).first).to_be_attached()


def test_both_see_a_task_and_its_end(
    chromium: Browser, flower: Flower, site: Site, server: RedisServer, worker: LoggedProcess
):
    id = sent(server, "tasks.fail")
    ours = site.told(id, "FAILURE")
    page = opened(chromium, flower, f"/task/{id}")
    page.wait_for_function("document.body.innerText.includes('FAILURE')")
    assert "ValueError('boom')" in page.content().replace("&#x27;", "'").replace("&#39;", "'")
    assert "tasks.fail" in ours
    page.goto(f"{flower.address}/workers")
    page.get_by_role("link", name=NODE).first.click()
    expect(page.locator("#workername")).to_have_text(NODE)
    page.close()


def test_flowers_buttons_are_seen_by_the_dashboard(
    chromium: Browser, flower: Flower, site: Site, server: RedisServer, worker: LoggedProcess
):
    before = asked(server, "stats")["pool"]["max-concurrency"]
    page = opened(chromium, flower, f"/worker/{NODE}")
    page.locator("#pool-size").fill("2")
    page.locator("#worker-pool-grow").click()
    said(page, "Growing")
    assert asked(server, "stats")["pool"]["max-concurrency"] == before + 2
    page.locator("#worker-tab-queues").click()
    page.locator("#add-consumer-name").fill("other")
    page.locator("#worker-add-consumer").click()
    said(page, "add consumer other")
    assert "other" in site.page(f"workers/{NODE}")
    page.locator("#worker-tab-limits").click()
    page.get_by_label("Timeout for tasks.add").fill("90")
    page.locator("[id='task-timeout-hard-tasks.add']").click()
    said(page, "time limits set successfully")
    assert '<td data-label="Hard limit">90' in site.page(f"workers/{NODE}")
    page.close()


def test_a_task_is_terminated_in_one_and_seen_in_the_other(
    chromium: Browser, flower: Flower, site: Site, server: RedisServer, worker: LoggedProcess
):
    first, second = (sent(server, "tasks.sleep", 3600) for _ in range(2))
    for id in (first, second):
        site.told(id, "STARTED")
    page = opened(chromium, flower, f"/task/{first}")
    page.locator("#task-terminate").click()
    said(page, "Revoked")
    site.told(first, "REVOKED")
    site.post("do/tasks", action="terminate", id=second, back="tasks")
    site.told(second, "REVOKED")
    page.goto(f"{flower.address}/task/{second}")
    page.wait_for_function("document.body.innerText.includes('REVOKED')")
    page.close()


def test_flower_ends_the_worker(
    chromium: Browser, flower: Flower, site: Site, server: RedisServer, worker: LoggedProcess
):
    page = opened(chromium, flower, f"/worker/{NODE}")
    page.locator("#worker-group").click()
    page.locator("#worker-shutdown").click()
    said(page, "Shutting down!")
    assert worker.wait(timeout=PATIENCE) == 0
    site.shows("workers", "○ stopped")
    page.close()
