"""celeriac beat, celeriac schedules, and workers that tick."""

import json

from celeriac_probe import fetch
from tests.cli.project import TASKS, Project
from tests.metrics.scraping import Scrape
from tests.servers.redis import free_port

WAIT = 60.0

PERIODIC = """
from celeriac import crontab

app.schedule("report", "shop.add", crontab(minute=30, hour=7, tz="Europe/Berlin"), args=(1, 2), catch_up="all")
app.schedule("odd", "shop.add", crontab(minute="*/5-10"), args=(1, 2))
app.schedule("often", "shop.add", 0.2, args=(1, 2))
"""


def test_what_is_kept_can_be_listed_and_changed(project: Project):
    project.write(TASKS + PERIODIC)

    def schedules(*arguments: str) -> str:
        told = project.run("schedules", "-A", project.module, *arguments)
        assert told.exit_code == 0, told.output
        return told.output

    assert schedules("list").startswith("no periodic tasks of shop are kept; 3 tasks of its code")
    probes, port = str(project.directory / "probes"), free_port()
    shown = ("--probe-socket", probes, "--metrics-port", f"127.0.0.1:{port}")
    flags = ("--max-interval", "5", "-S", "x:Y", "--lease", "2")
    beat = project.start("beat", "-A", project.module, *flags, *shown)
    try:
        beat.wait_for("--max-interval 5 has no effect: it sleeps until the next slot")
        beat.wait_for("--scheduler x:Y has no effect: periodic tasks are kept with the broker")
        beat.wait_for("entries  report, odd, often")
        while "often" not in schedules():
            pass
        while fetch(probes, "/readyz", WAIT)[0] != 200 or fetch(probes, "/startupz", WAIT)[0] != 200:
            pass
        assert fetch(probes, "/livez", WAIT)[0] == 200
        while "celeriac_schedule_lag_seconds" not in (page := fetch(port, "/metrics", WAIT)[1].decode()):
            pass
        told = Scrape(page)
        assert told.value("celeriac_published_total", name="shop.add", queue_name="celery") >= 1
        assert told.value("celeriac_broker_up") == told.value("celeriac_backend_up") == 1
        listed = {row["name"]: row for row in json.loads(schedules("--json"))}
        assert listed["report"] | {"next": ""} == {
            "name": "report",
            "task": "shop.add",
            "schedule": "30 7 * * * Europe/Berlin",
            "paused": False,
            "declared": True,
            "last": None,
            "next": "",
            "oddities": [],
        }
        assert listed["odd"]["oddities"] == ["minute: '*/5-10' is read as '*/5', the rest is ignored"]
        assert [line[10:19] for line in schedules("next", "report", "-n", "2").splitlines()] == [
            " 07:30:00"
        ] * 2
        assert schedules("pause", "often") == "often is paused\n"
        assert "paused" in schedules("list")
        assert schedules("resume", "often") == "often is ticked again\n"
        assert len(schedules("trigger", "report").strip()) == 36
        assert schedules("backfill", "report", "2026-03-01T00:00", "2026-03-03T12:00") == "3 slots sent\n"
        assert schedules("remove", "often") == "often is removed\n"
    finally:
        assert beat.stop() == 0
    missing = project.run("schedules", "-A", project.module, "trigger", "never")
    assert (missing.exit_code, missing.stderr[:6]) == (2, "error:")
    waiting = project.run("queues", "-A", project.module, "--json")
    assert json.loads(waiting.output)["celery"] >= 4


def test_crontabs_that_mean_something_else_are_found(project: Project):
    project.write(TASKS + PERIODIC)
    told = project.run("schedules", "-A", project.module, "check")
    assert (told.exit_code, told.output) == (
        1,
        "odd: minute: '*/5-10' is read as '*/5', the rest is ignored\n",
    )


def test_what_celerys_beat_has_and_this_one_has_not_is_told(project: Project):
    project.write(TASKS)
    told = project.run("beat", "-A", project.module, "--detach")
    assert told.exit_code == 2
    assert "celeriac has no --detach: leave the process to systemd, a container or `&`" in told.stderr


def test_a_scheduler_that_is_not_known_is_refused_for_an_app_of_celerys(project: Project):
    project.write(
        "from celery import Celery\n\napp = Celery('shop', broker='memory://', set_as_current=False)\n"
    )
    told = project.run("beat", "-A", project.module, "-S", "shop.scheduler:Own")
    assert told.exit_code == 2
    assert "shop.scheduler:Own" in told.stderr


SOURCE = """
from celeriac import crontab
from celeriac.beat.entry import Entry
from celeriac.beat.source import Reading, SourceTaken


class Rows:
    name, every = "rows", 5.0

    async def read(self):
        if "taken" in sys.argv:
            raise SourceTaken("stop it")
        return Reading({"row": Entry(name="row", task="shop.add", schedule=crontab(minute="mon"))})


app.schedules.source = Rows()
"""


def test_crontabs_that_another_program_keeps_are_looked_at_too(project: Project, monkeypatch):
    project.write(f"import sys\n{TASKS}{SOURCE}")
    told = project.run("schedules", "-A", project.module, "check")
    assert (told.exit_code, told.output) == (1, "row: minute: 'mon' is the name of a day, read as 1\n")
    monkeypatch.setattr("sys.argv", ["taken"])
    told = project.run("schedules", "-A", project.module, "check")
    assert (told.exit_code, told.stdout) == (0, "0 periodic tasks, nothing odd\n")
    assert told.stderr == "note: what rows keeps is not looked at: stop it\n"


def test_a_worker_ticks_what_its_code_declares_unless_it_is_told_not_to(project: Project):
    project.write(TASKS + PERIODIC)
    with project.worker("-l", "info") as ticks, project.worker("--no-beat", "-n", "other") as other:
        ticks.wait_for("shop.add")
        other.wait_for("shop.add")  # from the same queue
    with project.worker("-Q", "another", "--no-beat") as alone:
        assert "odd" not in alone.output
