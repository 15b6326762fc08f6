"""celeriac failed."""

import asyncio
import json

from celeriac import Celeriac
from celeriac.contracts.set_aside import Failed
from tests.cli.project import Project


def fail(project: Project, *calls: tuple[str, str, list[object]]) -> None:
    """Have tasks fail, as in a worker: name, id and arguments of each."""

    async def whole() -> None:
        async with Celeriac("failing", project.url) as app:
            for task, id, args in calls:
                await app.send_task(task, args, task_id=id)
            async with app.connections().broker.subscribe(["celery"]) as subscription:
                for _, id, _ in calls:
                    (delivery,) = await subscription.take(1)
                    await delivery.receipt.fail(Failed(id, "ValueError('no')"))

    asyncio.run(whole())


def waiting(project: Project) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        project.run("queues", "peek", "celery", "--json", "-b", project.url).output
    )
    return found


def test_list_and_show(project: Project):
    fail(project, ("shop.pay", "id-1", [7, "secret"]))
    listed = project.run("failed", "-b", project.url).output
    assert "shop.pay" in listed
    assert "ValueError('no')" in listed
    assert listed.count("id-1") == 1  # an id of 36 characters twice leaves no room for either in 80 columns
    shown = project.run("failed", "show", "id-1", "-b", project.url).output
    assert '"secret"' in shown
    missing = project.run("failed", "show", "none", "-b", project.url)
    assert missing.exit_code == 1
    assert "there is no failed task none; celeriac failed lists them" in missing.stderr


def test_retry(project: Project):
    fail(project, ("shop.pay", "id-1", [7]), ("shop.pay", "id-2", [8]), ("shop.ship", "id-3", [9]))
    done = project.run("failed", "retry", "--task", "shop.p*", "-b", project.url)
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["id-1", "id-2"]
    assert "2 tasks sent again" in done.stderr
    assert len(waiting(project)) == 2
    left = json.loads(project.run("failed", "list", "--json", "-b", project.url).output)
    assert [entry["task id"] for entry in left] == ["id-3"]


def test_retry_with_changes(project: Project):
    fail(project, ("shop.pay", "id-1", [7]), ("shop.pay", "id-2", [8]))
    wrong = project.run("failed", "retry", "--all", "--args", "[1]", "-b", project.url)
    assert wrong.exit_code == 2
    assert "for one task" in wrong.stderr
    wrong = project.run("failed", "retry", "id-1", "--args", "{}", "-b", project.url)
    assert wrong.exit_code == 2
    assert project.run("failed", "retry", "id-1", "--args", "[42]", "-b", project.url).exit_code == 0
    assert "(42)" in json.dumps(waiting(project))


def test_delete(project: Project):
    fail(project, ("shop.pay", "id-1", [7]), ("shop.pay", "id-2", [8]))
    assert project.run("failed", "delete", "id-1", "-y", "-b", project.url).stdout == "1 message deleted\n"
    assert project.run("failed", "delete", "--all", "-y", "-b", project.url).stdout == "1 message deleted\n"
    assert project.run("failed", "-b", project.url).stdout == "no failed tasks\n"
