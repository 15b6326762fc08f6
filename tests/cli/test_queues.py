"""celeriac queues."""

import json

from tests.cli.project import Project


def test_list_peek_purge(project: Project):
    for number in range(3):
        project.run("call", "-A", project.module, "shop.add", str(number), "1", "-Q", "slow")
    listed = project.run("queues", "-A", project.module)
    assert listed.output.splitlines() == ["queue  waiting  workers", "slow         3        0"]
    assert json.loads(project.run("queues", "--json", "-A", project.module).output) == {"slow": 3}
    peeked = project.run("queues", "peek", "slow", "-n", "2", "-A", project.module)
    rows = peeked.output.splitlines()[1:]
    assert [row.split()[1:3] for row in rows] == [["shop.add", "0"]] * 2
    assert [row.endswith(f"({number}, 1)") for number, row in enumerate(rows)] == [True, True]
    purged = project.run("queues", "purge", "slow", "-y", "-A", project.module)
    assert (purged.exit_code, purged.output) == (0, "3 tasks deleted\n")
    assert json.loads(project.run("queues", "--json", "-A", project.module).output) == {"slow": 0}


def test_purge_asks_and_deletes_nothing_without_an_answer(project: Project):
    project.run("call", "-A", project.module, "shop.add", "1", "1")
    asked = project.run("queues", "purge", "celery", "-A", project.module)
    assert asked.exit_code == 2
    assert "Delete 1 waiting task (1 in celery)? Nobody is here to ask: confirm with -y" in asked.stderr
    assert json.loads(project.run("queues", "--json", "-A", project.module).output) == {"celery": 1}


def test_some_are_removed(project: Project):
    sent = [
        project.run("call", "-A", project.module, "shop.add", str(number), "1").stdout.strip()
        for number in range(4)
    ]
    project.publish(b"not json")
    base = ("-A", project.module)
    asked = project.run("queues", "remove", "celery", sent[1], *base)
    assert asked.exit_code == 2
    assert f"Delete 1 task ({sent[1]}) from queue celery? Nobody is here to ask" in asked.stderr
    removed = project.run("queues", "remove", "celery", sent[1], sent[2][:20], "none", "-y", *base)
    assert (removed.exit_code, removed.output) == (0, "2 tasks deleted\n")
    assert json.loads(project.run("queues", "--json", *base).output) == {"celery": 3}
    assert "REVOKED" in project.run("result", sent[1], *base).output
    assert (
        project.run("queues", "remove", "celery", "--task", "shop.*", "-y", *base).output
        == "2 tasks deleted\n"
    )
    for which in ([], [sent[0], "--task", "x"]):
        assert "which ones?" in project.run("queues", "remove", "celery", *which, "-y", *base).stderr


def test_unknown_queue_names_a_near_one(project: Project):
    project.run("call", "-A", project.module, "shop.add", "1", "1")
    for command in (["peek", "celry"], ["purge", "celry", "-y"], ["remove", "celry", "x", "-y"]):
        ended = project.run("queues", *command, "-A", project.module)
        assert ended.exit_code == 1
        assert "did you mean celery?" in ended.stderr


def test_peek_shows_what_cannot_be_read(project: Project):
    project.publish(b"not json")
    peeked = project.run("queues", "peek", "celery", "-A", project.module)
    assert peeked.exit_code == 0
    assert "malformed: " in peeked.output


def test_works_on_redis_without_code(project: Project, redis_url: str, queue: str):
    sent = project.run("call", "-b", redis_url, "shop.add", "1", "1", "-Q", queue)
    assert sent.exit_code == 0
    peeked = json.loads(project.run("queues", "peek", queue, "--json", "-b", redis_url).output)
    assert [(task["id"], task["task"]) for task in peeked] == [(sent.output.strip(), "shop.add")]
    assert project.run("queues", "purge", queue, "-y", "-b", redis_url).output == "1 task deleted\n"


def test_one_is_counted_as_one(project: Project):
    project.run("call", "-b", project.url, "shop.add", "1", "2")
    asked = project.run("queues", "purge", "celery", "-b", project.url)
    assert "Delete 1 waiting task (1 in celery)?" in asked.stderr
    checked = project.run("doctor", "-b", project.url, "--backend", project.url)
    assert f"SQLite file {project.file}, 1 queue, " in checked.stdout
    with project.worker("-c", "1") as worker:
        assert "at once  1 task, plain" in worker.output


def test_a_queue_is_paused_and_resumed(project: Project):
    project.run("call", "-A", project.module, "shop.add", "1", "1", "-Q", "slow")
    paused = project.run("queues", "pause", "slow", "-A", project.module)
    assert (paused.exit_code, paused.output) == (0, "queue slow is paused; 0 workers took from it\n")
    listed = project.run("queues", "-A", project.module)
    assert listed.output.splitlines() == ["queue  waiting  workers", "slow         1   paused"]
    resumed = project.run("queues", "resume", "slow", "celery", "-A", project.module)
    assert resumed.output == "queue slow goes on\nqueue celery was not paused\n"
    assert "paused" not in project.run("queues", "-A", project.module).output
