"""celeriac doctor."""

import json
from pathlib import Path

from tests.cli.project import Project


def test_healthy(project: Project):
    project.bury("shop.gone")
    told = project.run("doctor", "-A", project.module)
    assert told.exit_code == 0
    for text in (
        "ok    app       shop, 5 tasks",
        "(from the app): SQLite file",
        "warn  dead      1 set aside",
        f"fix: start one: celeriac -A {project.module} worker;",
        f"fix: celeriac -A {project.module} dead\n",
    ):
        assert text in told.output


def test_the_queues_of_the_app_are_listed_before_they_are_used(project: Project):
    project.write(
        "from celeriac import Celeriac\n"
        f"app = Celeriac('mail', '{project.url}', default_queue='letters')\n"
        "@app.task(queue='parcels')\n"
        "def post() -> None: ...\n",
        "mail",
    )
    project.bury("shop.gone")
    checks = json.loads(project.run("doctor", "-A", "mail", "--json").output)
    (listed,) = (check["text"] for check in checks if check["about"] == "queues")
    assert {"letters 0", "parcels 0"} <= set(listed.split(", "))


def test_what_is_only_in_this_process_is_said(project: Project):
    for arguments in (["status"], ["dead"], ["call", "shop.add", "1", "2"]):
        told = project.run(*arguments, "-b", "memory://")
        assert "note: memory:// is in this process alone" in told.stderr
    told = project.run("dead", "-A", project.module, "-b", project.url)
    assert "note:" not in told.stderr


def test_redis_by_the_environment(project: Project, redis_url: str):
    project.env = {"CELERIAC_BROKER": redis_url, "CELERIAC_BACKEND": redis_url}
    told = project.run("doctor")
    assert told.exit_code == 0
    assert f"{redis_url} (from CELERIAC_BROKER): Redis" in told.output
    assert f"{redis_url} (from CELERIAC_BACKEND): Redis" in told.output


def test_a_store_without_a_url_is_said_to_come_from_the_app(project: Project):
    project.write(
        "from celery import Celery\napp = Celery('shop', broker='memory://', backend='file:///nowhere')\n",
        "filed",
    )
    told = project.run("doctor", "-A", "filed")
    assert "an object of the app's own (from the app)" in told.output


def test_dead_broker(project: Project):
    told = project.run("doctor", "-b", "redis://user:secret@127.0.0.1:1/0", "--json")
    assert told.exit_code == 1
    checks = {check["about"]: check for check in json.loads(told.output)}
    assert checks["broker"]["level"] == "fail"
    assert checks["broker"]["text"].startswith("redis://user:***@127.0.0.1:1/0 (from the command line): ")
    assert "does it run" in checks["broker"]["fix"]
    assert (checks["backend"]["level"], "results are not kept" in checks["backend"]["text"]) == ("warn", True)


def test_looking_makes_no_file(project: Project):
    told = project.run("doctor", "-A", project.module)
    assert told.exit_code == 0
    assert "no such file yet" in told.output
    assert not project.file.exists()


def test_directory_that_is_not_there(project: Project, tmp_path: Path):
    told = project.run("doctor", "-b", f"sqlite:///{tmp_path}/none/shop.db")
    assert told.exit_code == 1
    assert "make that directory" in told.output


def test_app_that_cannot_be_loaded(project: Project):
    told = project.run("doctor", "-A", f"{project.module}x")
    assert told.exit_code == 1
    assert f"did you mean {project.module}?" in told.output


def test_pickle_is_worth_a_warning(project: Project):
    name = project.write(
        "from celeriac import Celeriac\napp = Celeriac('p', accept_content=['json', 'pickle'])\n"
        "app.task(name='p.t')(print)\n",
        f"pickled_{project.module}",
    )
    assert "reads pickle" in project.run("doctor", "-A", name).output
