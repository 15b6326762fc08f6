"""celeriac dead."""

import asyncio
import json
import uuid

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
    retried = project.run("dead", "retry", "--task", "*.one", "--error", "keyerror", "-b", project.url)
    assert retried.stdout == "1 message back on its queue\n"
    assert depth(project) == 1
    assert [(letter["task"], letter["reason"]) for letter in letters(project)] == [
        ("shop.one", "Timeout"),
        ("shop.two", "Timeout"),
    ]
    assert [letter["task"] for letter in letters(project, "--task", "*.two")] == ["shop.two"]


def test_retry_one_and_all(project: Project):
    project.bury("shop.one", "shop.two", "shop.three")
    first = letters(project)[0]["id"]
    assert project.run("dead", "retry", first, "-b", project.url).stdout.startswith("1 message back")
    assert project.run("dead", "retry", "--all", "-b", project.url).stdout.startswith("2 messages back")
    assert (depth(project), letters(project)) == (3, [])


def test_delete_asks(project: Project):
    project.bury("shop.one", "shop.two")
    asked = project.run("dead", "delete", "--all", "-b", project.url)
    assert asked.exit_code == 2
    assert "Delete 2 messages for good?" in asked.stderr
    assert len(letters(project)) == 2
    deleted = project.run("dead", "delete", "--task", "shop.one", "-y", "-b", project.url)
    assert deleted.stdout == "1 message deleted\n"
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
    assert again.stdout == "2 messages back on their queues\n"


def bury_with_id(project: Project, *ids: str) -> None:
    asyncio.run(project.bury_calls([("shop.one", {"task_id": id}) for id in ids]))


def test_row_numbers_match_exactly(project: Project):
    project.bury(*["shop.one"] * 10)
    project.run("dead", "delete", "1", "-y", "-b", project.url)
    bury_with_id(project, "1000-a", "1000-b")
    for number in ("1", "1000"):
        ended = project.run("dead", "delete", number, "-y", "-b", project.url)
        assert ended.exit_code == 1
        assert f"there is no dead letter {number}; " in ended.stderr
    assert len(letters(project)) == 11
    assert "id           10\n" in project.run("dead", "show", "10", "-b", project.url).stdout


def test_beginnings_of_ids_have_four_characters(project: Project):
    bury_with_id(project, "abcd-first", "abcd-second", "other")
    too_short = project.run("dead", "delete", "oth", "-y", "-b", project.url)
    assert too_short.exit_code == 1
    assert "a beginning of an id has at least 4 characters" in too_short.stderr
    several = project.run("dead", "show", "abcd", "-b", project.url)
    assert several.exit_code == 1
    assert "2 dead letters begin with abcd" in several.stderr
    assert len(letters(project)) == 3
    assert project.run("dead", "delete", "abcd-f", "-y", "-b", project.url).stdout == "1 message deleted\n"


@pytest.mark.parametrize("arguments", [["delete", "-y"], ["delete"], ["retry"]])
def test_what_will_go_is_shown(project: Project, arguments: list[str]):
    project.bury("shop.one", "shop.two", reason="a reason")
    [one, two] = letters(project)
    ended = project.run("dead", *arguments, one["task id"], "-b", project.url)
    for text in ("shop.one", one["task id"], "a reason"):
        assert text in ended.stderr
    assert two["task id"] not in ended.stderr


def test_what_a_worker_refused_is_there(shop: Project):
    name = f"shop.unknown-{uuid.uuid4().hex}"
    task_id = shop.run("call", "-A", shop.module, name, "1").stdout.strip()
    assert shop.run("result", "-A", shop.module, task_id, "--wait").exit_code == 1
    told = json.loads(shop.run("dead", "list", "--task", f"{name}*", "--json", "-A", shop.module).output)
    assert [letter["task id"] for letter in told] == [task_id]
    assert "TaskNotFound" in told[0]["reason"]
