"""Periodic tasks on the page of what is scheduled."""

import asyncio
from pathlib import Path

from celeriac import Celeriac
from tests.web.site import Site


def test_a_periodic_task_is_shown_paused_and_run_now(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    (tmp_path / "tasks.py").write_text(
        f"from celeriac import Celeriac\napp = Celeriac('tasks', broker={url!r})\n"
    )
    asyncio.run(_add(Celeriac("tasks", broker=url, backend=url)))
    with Site(url, tmp_path, ["-A", "tasks"]) as site:
        page = site.page("scheduled")
        assert "nightly" in page
        assert "tasks.report" in page
        assert "nightly%20is%20paused" in site.post(
            "do/periodic", action="pause", name="nightly", back="scheduled"
        )
        assert "paused</td>" in site.page("scheduled")
        assert "goes%20on" in site.post("do/periodic", action="resume", name="nightly", back="scheduled")
        assert "was%20sent" in site.post("do/periodic", action="trigger", name="nightly", back="scheduled")
        assert "1 tasks wait" in site.page("queues/celery")
        assert "not%20done" in site.post("do/periodic", action="pause", name="<b>", back="scheduled")


async def _add(app: Celeriac) -> None:
    async with app:
        await app.schedules.add("nightly", "tasks.report", "30 7 * * *")
