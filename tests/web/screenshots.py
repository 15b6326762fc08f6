"""Takes the pictures of the documentation anew: ``python -m tests.web.screenshots [FOLDER]``.

They are of a running dashboard, and of what the demo prints. The shop is compiled with the name that its file has in a
project: tracebacks would else show the folder of this run.
"""

import py_compile
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.servers import LoggedProcess
from tests.web.site import PATIENCE, Site
from tests.web.terminal_picture import take_terminal

ROOT = Path(__file__).resolve().parents[2]
PICTURES = {"dashboard": "", "dashboard-errors": "errors", "dashboard-task": "tasks?name=shop.total"}

SHOP = """
import asyncio
from celeriac import Celeriac, Retry, chord

app = Celeriac("shop")


@app.task
async def price(item: int, pieces: int) -> int:
    await asyncio.sleep(item % 7 / 50)
    return item * pieces


@app.task
async def total(prices: list[int]) -> int:
    return sum(prices)


@app.task(retry=Retry(on=(OSError,), max_attempts=2, backoff=0.1))
async def charge(order: int, token: str) -> None:
    if order % 3 == 0:
        raise OSError("the payment service is away")
    if order % 7 == 0:
        raise LookupError(f"order {order} has no address")


async def main() -> None:
    async with app:
        for number in range(1, 30):
            await charge.send(number, token="tok_4711")
        await price.using(countdown=3600).send(1, 2)
        await (await chord([price.s(item, 2) for item in range(1, 6)], total.s()).send())


if __name__ == "__main__":
    asyncio.run(main())
"""


def take(folder: Path) -> list[Path]:
    """Take all pictures; return their files."""
    return [take_terminal(folder / "demo.svg"), *_take_pages(folder)]


def _take_pages(folder: Path) -> list[Path]:
    where = shutil.which("chromium")
    assert where, "screenshots need chromium on the PATH"
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        _install(place)
        worker = LoggedProcess([sys.executable, "-m", "celeriac", "worker", "-A", "shop", "-E"], cwd=place)
        try:
            worker.wait_for("ready", timeout=PATIENCE)
            with Site(f"sqlite:///{place / 'shop.db'}", place) as site, sync_playwright() as playwright:
                site.shows("workers", "celeriac@")
                _fill(place)
                site.shows("tasks?name=shop.total", "state-success")
                site.when("tasks?state=FAILURE", lambda page: page.count("FAILURE</span>") >= 12, "failures")
                browser = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
                taken = [
                    _picture(browser, site, folder / f"{name}.png", path) for name, path in PICTURES.items()
                ]
                browser.close()
                return taken
        finally:
            worker.kill()


def _install(place: Path) -> None:
    """Have the shop importable in this folder as from ``src/shop.py``."""
    source = place / "src" / "shop.py"
    source.parent.mkdir()
    source.write_text(SHOP)
    py_compile.compile(str(source), str(place / "shop.pyc"), dfile="src/shop.py", doraise=True)


def _fill(place: Path) -> None:
    sender = LoggedProcess([sys.executable, "src/shop.py"], cwd=place)
    assert sender.wait(timeout=PATIENCE) == 0, sender.output


def _picture(browser: Browser, site: Site, file: Path, path: str) -> Path:
    page = browser.new_page(viewport={"width": 1100, "height": 640})
    page.goto(f"http://127.0.0.1:{site.port}/{path}")
    if "name=" in path:
        page.locator("tbody a").first.click()
        page.locator(".graph").wait_for()
        # In one step: the page draws itself anew meanwhile, and with that its elements.
        page.evaluate("document.querySelector('.graph').scrollIntoViewIfNeeded()")
    page.screenshot(path=file)
    page.close()
    return file


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    target.mkdir(parents=True, exist_ok=True)
    take(target)
