"""A dashboard that is killed loses nothing of its history but the last moment, and starts again."""

import re
import uuid
from pathlib import Path

import pytest
from celery import Celery

from tests.web.site import Site

MANY = 30


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_kill_9(fleet: str, shop: Celery, tmp_path: Path, store: str, request: pytest.FixtureRequest):
    options = ["--history", request.getfixturevalue("postgres_url")] if store == "postgres" else []
    text = uuid.uuid4().hex

    def fail(part: int) -> str:
        return str(shop.send_task("tests.web.shop.fail", [f"{text}-{part}"]).id)

    def known(site: Site) -> set[str]:
        page = site.page(f"tasks?text={text}&state=FAILURE")
        return set(re.findall(r'aria-label="choose ([0-9a-f-]{36})"', page))

    site = Site(fleet, tmp_path, options)
    site.start()
    site.shows("workers", "shop@test")
    ids = [fail(part) for part in range(MANY)]
    site.when(f"tasks?text={text}&state=FAILURE", lambda page: page.count("FAILURE</span>") >= 5, "failures")
    before = known(site)
    late = fail(MANY)  # it is killed while it hears and writes
    site.process.kill()
    unheard = fail(MANY + 1)
    with Site(fleet, tmp_path, options) as again:
        assert before <= known(again)
        assert before <= set(ids)
        # What it did not hear is known by the results, and what comes is heard.
        for id in (late, unheard):
            again.shows(f"tasks/{id}", "FAILURE</span>")
        again.told(fail(MANY + 2), "FAILURE")
        assert "ValueError" in again.page("errors")
