"""A fleet of Celery's with a dashboard, shared by the tests of this folder."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.servers import LoggedProcess, RedisServer
from tests.servers.redis import free_port
from tests.web.site import PATIENCE, Site

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="package")
def fleet() -> Iterator[str]:
    """The URL of a Redis with one worker of Celery's on it, which tells of its tasks."""
    with RedisServer() as server:
        environment = {**os.environ, "WEB_TESTS_REDIS": server.url(), "C_FORCE_ROOT": "1"}
        command = [sys.executable, "-m", "celery", "-A", "tests.web.shop", "worker", "-c", "1", "-E"]
        command += ["-n", "shop@test", "--without-gossip", "--without-mingle", "-l", "INFO"]
        worker = LoggedProcess(command, env=environment, cwd=ROOT)
        worker.wait_for("shop@test ready.", timeout=60)
        yield server.url()
        worker.kill()


@pytest.fixture(scope="package")
def shop(fleet: str) -> Celery:
    """A client of that fleet."""
    return Celery("client", broker=fleet, backend=fleet, set_as_current=False)


@pytest.fixture(scope="package")
def site(fleet: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The dashboard of that fleet."""
    port = free_port()
    with Site(fleet, tmp_path_factory.mktemp("site"), ["--metrics-port", f"127.0.0.1:{port}"]) as site:
        site.metrics_port = port
        site.shows("workers", "shop@test")
        yield site


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    where = shutil.which("chromium")
    assert where, "the tests need chromium on the PATH; run make test, or: sudo apt-get install chromium"
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE * 1000)
        options = ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=where, args=options)
        yield browser
        browser.close()


def wait_until(page: Page, holds: str) -> None:
    """Wait for what a script tells; Playwright's own wait is refused by the page's content security policy."""
    deadline = time.monotonic() + 60
    while not page.evaluate(holds):
        assert time.monotonic() < deadline, holds
        page.wait_for_timeout(20)
