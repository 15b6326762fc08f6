"""celeriac queues scheduled, celeriac revoke."""

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from celeriac.cli.scheduled import duration
from tests.cli.project import Project


def send(project: Project, *options: str) -> str:
    """Send a task that nobody runs; return its id."""
    sent = project.run("call", "-A", project.module, "shop.add", "1", "1", *options)
    assert sent.exit_code == 0
    return sent.stdout.strip()


def scheduled(project: Project, *options: str) -> list[dict[str, object]]:
    told: list[dict[str, object]] = json.loads(
        project.run("queues", "scheduled", "--json", "-A", project.module, *options).output
    )
    return told


def state(project: Project, task_id: str) -> str:
    record = json.loads(project.run("result", task_id, "--json", "-A", project.module).output)
    return str(record["status"])


def test_the_next_one_first(project: Project):
    later, soon = send(project, "--countdown", "7300", "-Q", "slow"), send(project, "--countdown", "3700")
    send(project)
    listed = project.run("queues", "scheduled", "-A", project.module).output.splitlines()
    assert [row.split() for row in listed] == [
        ["due", "in", "task", "id", "queue"],
        ["1", "h", "1", "min", "shop.add", soon, "celery"],
        ["2", "h", "1", "min", "shop.add", later, "slow"],
    ]
    first, second = scheduled(project)
    assert (first["id"], first["arguments"], first["queue"]) == (soon, "(1, 1)", "celery")
    assert 3600 < float(str(first["due_in"])) < 3700
    assert second["id"] == later


def test_at_a_time_of_the_apps_zone_where_it_names_none(project: Project):
    plain = (datetime.now(UTC) + timedelta(hours=2)).replace(tzinfo=None)
    zoned = (datetime.now(UTC) + timedelta(hours=3)).astimezone(ZoneInfo("Asia/Tokyo"))
    first, second = send(project, "--eta", plain.isoformat()), send(project, "--eta", zoned.isoformat())
    found = scheduled(project)
    assert [entry["id"] for entry in found] == [first, second]
    assert [round(float(str(entry["due_in"])) / 3600, 1) for entry in found] == [2.0, 3.0]
    wrong = project.run("call", "-A", project.module, "shop.add", "1", "1", "--eta", "tomorrow")
    assert wrong.exit_code == 2
    assert "'tomorrow' is no time: give one such as" in wrong.stderr


def test_a_limit_says_what_it_left_off(project: Project):
    for _ in range(3):
        send(project, "--countdown", "100")
    listed = project.run("queues", "scheduled", "--limit", "2", "-A", project.module)
    assert len(listed.stdout.splitlines()) == 3
    assert "and 1 more: -n 3" in listed.stderr
    assert len(scheduled(project, "-n", "1")) == 1


def test_nothing_is_scheduled(project: Project):
    send(project)
    assert project.run("queues", "scheduled", "-A", project.module).output == "nothing is scheduled\n"


def test_cancel_by_the_beginning_of_an_id(project: Project):
    one, other, kept = (send(project, "--countdown", "100") for _ in range(3))
    ended = project.run("queues", "scheduled", "--cancel", one[:18], "--cancel", other, "-A", project.module)
    assert (ended.exit_code, ended.stdout) == (0, "2 tasks cancelled\n")
    assert all(id in ended.stderr for id in (one, other))
    assert [entry["id"] for entry in scheduled(project)] == [kept]
    assert [state(project, id) for id in (one, other, kept)] == ["REVOKED", "REVOKED", "PENDING"]


def test_cancel_wants_one_task(project: Project):
    for number in range(2):
        send(project, "--countdown", "100", "--task-id", f"same-{number}")
    for id, told in (
        ("no-such-id", "no task no-such-id is scheduled"),
        ("abc", "has at least 4"),
        ("same", "2 scheduled tasks begin with"),
    ):
        ended = project.run("queues", "scheduled", "--cancel", id, "-A", project.module)
        assert ended.exit_code == 1
        assert told in ended.stderr
    assert len(scheduled(project)) == 2


def test_revoke_tasks_and_workflows(project: Project):
    ids = [send(project), send(project, "--countdown", "100")]
    ended = project.run("revoke", *ids, "-A", project.module)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert re.match(r"2 tasks revoked, until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d or longer\n", ended.stdout)
    assert [state(project, id) for id in ids] == ["REVOKED", "REVOKED"]
    ended = project.run("revoke", "--root", "--terminate", "a-root", "-A", project.module)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout.startswith("1 workflow revoked, until ")


def test_revoking_what_nobody_knows_says_so(project: Project):
    waiting, later = send(project), send(project, "--countdown", "100")
    ended = project.run("revoke", "nope", waiting, later, "-A", project.module)
    assert ended.exit_code == 0
    [note] = ended.stderr.splitlines()
    assert note.startswith("note: nothing is known of nope here: ")
    stands_until = re.search(r"until (\S+ \S+) or longer", ended.stdout)
    assert stands_until is not None
    assert f"sent before {stands_until[1]} will not run" in note
    again = project.run("revoke", "nope", "-A", project.module)
    assert (again.exit_code, again.stderr) == (0, "")


def test_where_the_queues_are_not_looked_through_it_says_so(
    project: Project, rabbit_url: str, redis_url: str
):
    unknown = uuid.uuid4().hex
    ended = project.run("revoke", unknown, "-b", rabbit_url, "--backend", redis_url)
    assert ended.exit_code == 0
    [note] = ended.stderr.splitlines()
    assert note.startswith(
        f"note: nothing is known of {unknown} here: no result, and the queues were not looked through; "
    )


def test_a_worker_started_later_does_not_run_them(project: Project):
    revoked = send(project)
    project.run("revoke", revoked, "-A", project.module)
    with project.worker():
        assert project.run("call", "-A", project.module, "shop.add", "2", "2", "--wait").stdout == "4\n"
    assert state(project, revoked) == "REVOKED"


def test_on_redis_without_code(project: Project, redis_url: str, queue: str):
    task_id = project.run("call", "-b", redis_url, "shop.add", "1", "1", "-Q", queue).stdout.strip()
    assert project.run("revoke", task_id, "-b", redis_url).stdout.startswith("1 task revoked, until ")
    assert project.run("queues", "scheduled", "-b", redis_url).exit_code == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "now"), (0, "now"), (4.5, "4.5 s"), (60, "1 min 0 s"), (3661, "1 h 1 min"), (90061, "1 d 1 h")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
