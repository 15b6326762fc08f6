"""celeriac dead."""

import json

import pytest

from tests.cli.project import Project


def letters(project: Project, *options: str) -> list[dict[str, str]]:
    """What ``dead list`` tells."""
    told: list[dict[str, str]] = json.loads(
        project.run("dead", "list", "--json", "-b", project.url, *options).output
    )
    return told


def depth(project: Project, queue: str = "celery") -> int:
    return int(json.loads(project.run("queues", "--json", "-b", project.url).output)[queue])


def test_list_and_show(project: Project):
    project.bury("shop.gone", reason="TaskNotFound: shop.gone\nis not registered")
    listed = project.run("dead", "-b", project.url)
    heading, row = listed.output.splitlines()
    assert heading.split() == ["id", "died", "at", "queue", "task", "task", "id", "reason"]
    assert "shop.gone" in row
    assert row.endswith(r"TaskNotFound: shop.gone\nis not registered")
    shown = project.run("dead", "show", row.split()[0], "-b", project.url)
    assert shown.exit_code == 0
    for text in ("arguments    (1)", "queue        celery", "body         [[1]"):
        assert text in shown.output


def test_retry_by_task_and_error(project: Project):
    project.bury("shop.one", "shop.two", reason="Timeout")
    project.bury("shop.one", reason="KeyError")
    assert project.run(
        "dead", "retry", "--task", "*.one", "--error", "keyerror", "-b", project.url
    ).output == ("1 message back on their queues\n")
    assert depth(project) == 1
    assert [(letter["task"], letter["reason"]) for letter in letters(project)] == [
        ("shop.one", "Timeout"),
        ("shop.two", "Timeout"),
    ]
    assert [letter["task"] for letter in letters(project, "--task", "*.two")] == ["shop.two"]


def test_retry_one_and_all(project: Project):
    project.bury("shop.one", "shop.two", "shop.three")
    first = letters(project)[0]["id"]
    assert project.run("dead", "retry", first, "-b", project.url).output.startswith("1 message back")
    assert project.run("dead", "retry", "--all", "-b", project.url).output.startswith("2 messages back")
    assert (depth(project), letters(project)) == (3, [])


def test_delete_asks(project: Project):
    project.bury("shop.one", "shop.two")
    asked = project.run("dead", "delete", "--all", "-b", project.url)
    assert asked.exit_code == 2
    assert "Delete 2 messages for good?" in asked.stderr
    assert len(letters(project)) == 2
    deleted = project.run("dead", "delete", "--task", "shop.one", "-y", "-b", project.url)
    assert deleted.output == "1 message deleted\n"
    assert [letter["task"] for letter in letters(project)] == ["shop.two"]


@pytest.mark.parametrize("command", ["retry", "delete"])
def test_which_ones_must_be_said(project: Project, command: str):
    project.bury("shop.one")
    ended = project.run("dead", command, "-b", project.url)
    assert ended.exit_code == 2
    assert "which ones?" in ended.stderr


def test_unknown_id(project: Project):
    project.bury("shop.one")
    ended = project.run("dead", "retry", "nobody", "-b", project.url)
    assert ended.exit_code == 1
    assert "there is no dead letter nobody; celeriac dead lists them" in ended.stderr


def test_task_ids_and_beginnings_of_ids(project: Project, redis_url: str, queue: str):
    project.bury("shop.one", "shop.two", queue=queue, url=redis_url)
    listed = json.loads(project.run("dead", "list", "--json", "-b", redis_url).output)
    first, second = [letter for letter in listed if letter["queue"] == queue]
    shown = project.run("dead", "show", first["task id"][:13], "-b", redis_url)
    assert shown.exit_code == 0
    assert first["id"] in shown.output
    assert second["id"] not in shown.output
    again = project.run("dead", "retry", first["task id"], second["id"], "-b", redis_url)
    assert again.output == "2 messages back on their queues\n"


def test_id_of_several(project: Project):
    project.bury(*["shop.one"] * 11)
    assert (
        project.run("dead", "show", "1", "-b", project.url).exit_code == 0
    )  # also the beginning of 10 and 11
    letter = letters(project)[0]
    ended = project.run("dead", "show", "", "-b", project.url)
    assert ended.exit_code == 1
    assert "11 dead letters begin with" in ended.stderr
    assert letter["id"] in project.run("dead", "show", letter["id"], "-b", project.url).output


def test_what_a_worker_refused_is_there(shop: Project):
    task_id = shop.run("call", "-A", shop.module, "shop.unknown_to_all", "1").stdout.strip()
    assert shop.run("result", "-A", shop.module, task_id, "--wait").exit_code == 1
    told = json.loads(shop.run("dead", "list", "--task", "shop.unknown*", "--json", "-A", shop.module).output)
    assert [letter["task id"] for letter in told] == [task_id]
    assert "TaskNotFound" in told[0]["reason"]
