"""What the pages show of a real fleet of Celery's, and what their buttons do."""

import asyncio
import html
import http.client
import re
import uuid
from pathlib import Path

from celery import Celery, chord, signature

from celeriac import Celeriac
from celeriac.contracts.set_aside import Failed
from celeriac.monitor.again import RETRY_OF
from celeriac.monitor.masking import HIDDEN
from celeriac.web.pages import PAGES
from celeriac.wire.envelope import Envelope
from celeriac.wire.task import TaskMessage, decode
from celeriac_probe import fetch
from redis import Redis
from tests.metrics.scraping import Scrape
from tests.servers import RedisServer
from tests.web.site import PATIENCE, Site


def test_every_page_of_the_menu(site: Site):
    for path in PAGES:
        if "{" not in path:
            assert "<h1>" in site.page(path.lstrip("/"))


def test_a_task_that_ended_well(site: Site, shop: Celery):
    result = shop.send_task("tests.web.shop.add", [20, 22])
    page = site.told(result.id, "SUCCESS")
    assert "tests.web.shop.add" in page
    assert "<code>20</code>" in page
    assert "<code>42</code>" in page
    assert "shop@test" in page


def test_a_task_is_shown_as_the_command_that_sends_it(site: Site, shop: Celery):
    added = shop.send_task("tests.web.shop.add", [20, 22])
    page = html.unescape(site.told(added.id, "SUCCESS"))
    assert "celeriac call tests.web.shop.add --args '[20, 22]'" in page
    secret = shop.send_task("tests.web.shop.fail", ["x"], {"password": "hunter2"})
    assert "celeriac call" not in site.told(secret.id, "FAILURE")


def test_a_task_that_failed_is_found_by_its_error(site: Site, shop: Celery):
    text = f"no such order {uuid.uuid4().hex}"
    result = shop.send_task("tests.web.shop.fail", [text], {"password": "hunter2"})
    page = html.unescape(site.told(result.id, "FAILURE"))
    assert f"ValueError('{text}')" in page
    assert "raise ValueError(text)" in page
    assert "hunter2" not in page
    assert HIDDEN in page
    listed = site.page(f"tasks?text={text.replace(' ', '+')}")
    assert result.id in listed
    assert result.id not in site.page("tasks?text=something+else")
    for times, there in (
        ("since=1h", True),
        ("until=1h", False),
        ("since=2000-01-01&until=2001-01-01", False),
    ):
        assert (result.id in site.page(f"tasks?{times}&text={text.replace(' ', '+')}")) is there, times
    assert "ValueError" in site.page("errors")


def test_the_metrics_tell_how_many_failed_tasks_are_kept(site: Site, shop: Celery):
    result = shop.send_task("tests.web.shop.decline", [1])
    site.told(result.id, "FAILURE")
    status, page = fetch(site.metrics_port, "/metrics", PATIENCE)
    told = Scrape(page.decode())
    assert status == 200
    assert told.value("celeriac_failed_kept") == 0
    assert told.value("celeriac_broker_up") == 1


def test_a_task_runs_again_with_its_arguments(site: Site, shop: Celery):
    number = uuid.uuid4().int % 10**9
    result = shop.send_task("tests.web.shop.decline", [number])
    site.told(result.id, "FAILURE")
    said = site.post("do/tasks", action="retry", id=result.id, back=f"tasks/{result.id}")
    assert said.startswith(f"../tasks/{result.id}?said=1%20task%20sent%20again")
    page = site.when(
        f"tasks?text={number}", lambda page: page.count("FAILURE</span>") == 2, "two tasks that failed"
    )
    assert page.count(f"LookupError({number})") == 2
    assert f"retry {result.id}" in site.page("about")


def test_a_task_whose_arguments_are_hidden_is_not_run_again_with_stars(site: Site, shop: Celery):
    result = shop.send_task("tests.web.shop.fail", ["x"], {"password": "hunter2"})
    site.told(result.id, "FAILURE")
    said = site.post("do/tasks", action="retry", id=result.id, back="tasks")
    assert "not%20known%20whole" in said
    said = site.post(
        "do/change", id=result.id, args="['x']", kwargs=f"{{'password': '{HIDDEN}'}}", back="tasks"
    )
    assert "write%20the%20value%20itself" in said


def test_a_task_runs_again_with_changes(site: Site, shop: Celery):
    result = shop.send_task("tests.web.shop.fail", ["x"])
    site.told(result.id, "FAILURE")
    text = uuid.uuid4().hex
    said = site.post("do/change", id=result.id, args=f"['{text}']", kwargs="{}", back="tasks")
    assert "sent%20again%20as" in said
    site.shows(f"tasks?text={text}&state=FAILURE", f"ValueError('{text}')")
    assert "cannot%20be%20read" in site.post("do/change", id=result.id, args="open('x')", back="tasks")


def test_all_errors_of_one_kind_run_again(site: Site, shop: Celery):
    number = uuid.uuid4().int % 10**9
    for part in range(3):
        shop.send_task("tests.web.shop.decline", [f"{number}-{part}"])
    site.when(f"tasks?text={number}", lambda page: page.count("FAILURE</span>") == 3, "three failures")
    said = site.post("do/tasks", action="retry", all="yes", text=str(number), state="FAILURE", back="tasks")
    assert "3%20tasks%20sent%20again" in said
    site.when(f"tasks?text={number}", lambda page: page.count("FAILURE</span>") == 6, "six failures")


def test_a_workflow_is_drawn(site: Site, shop: Celery):
    parts = [signature("tests.web.shop.add", (part, 1), app=shop) for part in range(12)]
    result = chord(parts, app=shop)(signature("tests.web.shop.total", app=shop))
    assert result.get(timeout=60) == 78
    page = site.told(result.id, "SUCCESS")
    assert 'class="graph"' in page
    assert "total" in page


def test_a_queue(site: Site, shop: Celery):
    name = f"orders-{uuid.uuid4().hex}"
    sent = [shop.send_task("shop.<b>ship</b>", [part], queue=name) for part in range(3)]
    page = site.shows("queues", name)
    page = site.page(f"queues/{name}")
    assert "3 tasks wait" in page
    assert sent[0].id in page
    assert "shop.&lt;b&gt;ship&lt;/b&gt;" in page
    said = site.post("do/queues", action="cancel", queue=name, key=sent[2].id, back=f"queues/{name}")
    assert "1%20waiting%20task%20cancelled" in said
    assert "is%20paused" in site.post("do/queues", action="pause", queue=name, back="queues")
    assert "paused" in site.page("queues")
    assert "Paused." in site.page(f"queues/{name}")
    assert "goes%20on" in site.post("do/queues", action="resume", queue=name, back="queues")
    assert "Paused." not in site.page(f"queues/{name}")
    assert "3%20waiting%20tasks" in site.post("do/queues", action="purge", queue=name, back="queues")
    assert "0 tasks wait" in site.page(f"queues/{name}")


def test_some_of_what_waits_is_deleted(site: Site, fleet: str, shop: Celery):
    name = f"orders-{uuid.uuid4().hex}"
    sent = [
        shop.send_task(f"shop.{task}", [part], queue=name) for task in ("ship", "bill") for part in range(4)
    ]
    with Redis.from_url(fleet) as redis:
        redis.lpush(name, b"no frame")
    page = site.shows("queues", name)
    page = site.page(f"queues/{name}")
    assert "9 tasks wait" in page
    [broken] = re.findall(r'value="(#[0-9a-f]+)"', page)
    here = {"queue": name, "back": f"queues/{name}"}
    chosen = [sent[1].id, sent[2].id, broken]
    assert "3%20waiting%20tasks%20of%20queue" in site.post("do/queues", action="delete", key=chosen, **here)
    page = site.page(f"queues/{name}")
    assert "6 tasks wait" in page
    assert not [key for key in chosen if key in page]
    # Who waits for them is told, and they are known to the history.
    assert [sent[1].state, sent[2].state, sent[0].state] == ["REVOKED", "REVOKED", "PENDING"]
    assert "state-revoked" in site.page(f"tasks/{sent[1].id}")
    said = site.post("do/queues", action="delete", key=[sent[1].id, sent[3].id], **here)
    assert "1%20waiting%20task%20of%20queue" in said
    assert "1%20did%20not%20wait%20any%20more" in said
    assert "name%20the%20task" in site.post("do/queues", action="delete_task", task="", **here)
    said = site.post("do/queues", action="delete_task", task="shop.b*", **here)
    assert "4%20waiting%20tasks%20of%20queue" in said
    assert [message.id for message in asyncio.run(waiting(fleet, name))] == [sent[0].id]
    log = html.unescape(site.page("about"))
    assert f"delete {name} {sent[1].id} {sent[2].id} {broken}" in log
    assert f"delete_task {name} shop.b*" in log
    assert "there%20is%20no%20queue" in site.post(
        "do/queues", action="delete", key="x", queue="none", back=""
    )


def test_what_is_scheduled_is_cancelled_and_gone(site: Site, fleet: str):
    queue = f"later-{uuid.uuid4().hex}"

    async def park() -> str:
        app = Celeriac("parking", fleet, fleet, default_queue=queue)
        async with app, app.connections().broker.subscribe([queue]):
            return (await app.send_task("shop.pay", [1], countdown=3600)).id

    id = asyncio.run(park())
    page = site.shows("scheduled", id)
    [key] = re.findall(rf'value="([^"]+)" aria-label="choose {id}"', page)
    said = site.post("do/scheduled", action="cancel", key=[key, "none"], back="scheduled")
    assert "1%20task%20cancelled" in said
    assert id not in site.page("scheduled")
    assert "the result store says REVOKED" in site.page(f"tasks/{id}") or "REVOKED" in site.page(
        f"tasks/{id}"
    )


def test_of_rabbitmq_messages_are_deleted_too_and_its_page_is_not_renewed(
    rabbit_url: str, redis_url: str, tmp_path: Path
):
    queue = f"orders-{uuid.uuid4().hex}"

    async def send() -> list[str]:
        async with Celeriac("sending", rabbit_url, redis_url, default_queue=queue) as app:
            return [(await app.send_task("shop.pay", [number])).id for number in range(3)]

    ids = asyncio.run(send())
    with Site(rabbit_url, tmp_path, backend=redis_url) as site:
        page = site.shows(f"queues/{queue}", "3 tasks wait")
        assert "the first 1000 messages" in page
        assert "is not renewed by itself" in page
        assert "tasks wait" not in page.partition('<div id="live">')[2]
        said = site.post("do/queues", action="delete", queue=queue, key=ids[1], back=f"queues/{queue}")
        assert "1%20waiting%20task%20of%20queue" in said
        page = site.shows(f"queues/{queue}", "2 tasks wait")
        assert [id in page for id in ids] == [True, False, True]


async def kept_as_failed(url: str, queue: str, args: list[object]) -> str:
    """Have a task fail as in a worker of celeriac's; return its id."""
    async with Celeriac("failing", url, default_queue=queue) as app:
        result = await app.send_task("shop.pay", args, {"password": "hunter2"})
        broker = app.connections().broker
        async with broker.subscribe([queue]) as subscription:
            [delivery] = await subscription.take(1)
            await delivery.receipt.fail(Failed(result.id, "ValueError('no money')"))
        return result.id


async def waiting(url: str, queue: str) -> list[TaskMessage]:
    async with Celeriac("looking", url) as app:
        found = [
            decode(one, app.codecs)
            for one in await app.connections().broker.peek(queue)
            if isinstance(one, Envelope)
        ]
    return [one for one in found if isinstance(one, TaskMessage)]


def test_a_failed_task_whose_message_is_kept_runs_again_as_it_was(site: Site, fleet: str):
    queue = f"kept-{uuid.uuid4().hex}"
    ids = [asyncio.run(kept_as_failed(fleet, queue, [number, "x" * 5000])) for number in range(3)]
    page = html.unescape(site.shows("dead", ids[2]))
    assert "ValueError('no money')" in page
    assert "hunter2" not in page
    assert "are kept whole" in site.shows("errors", "are kept whole")
    said = site.post("do/failed", action="retry", key=ids[0], back="dead")
    assert "1%20task%20sent%20again" in said
    assert "0%20tasks%20sent%20again" in site.post("do/failed", action="retry", key=ids[0], back="dead")
    # The page of the task does the same, and a double click does nothing more.
    assert "1%20task%20sent%20again" in site.post("do/tasks", action="retry", id=ids[1], back="tasks")
    assert "a%20moment%20ago" in site.post("do/tasks", action="retry", id=ids[1], back="tasks")
    sent = asyncio.run(waiting(fleet, queue))
    assert [message.args for message in sent] == [[0, "x" * 5000], [1, "x" * 5000]]
    assert [message.kwargs for message in sent] == 2 * [{"password": "hunter2"}]
    assert [message.headers[RETRY_OF] for message in sent] == ids[:2]
    said = site.post("do/change", id=ids[2], args="[42]", kwargs="{}", back="dead")
    assert "sent%20again%20as" in said
    assert asyncio.run(waiting(fleet, queue))[2].args == [42]
    assert not {*ids} & {*re.findall(r"[0-9a-f-]{36}", site.page("dead"))}


def test_a_worker_is_asked_only_on_its_own_page(site: Site, shop: Celery):
    task = "tests.web.shop.total"
    # Those of an earlier try.
    assert shop.control.time_limit(task, destination=["shop@test"], reply=True, timeout=60)
    page = site.shows("workers/shop@test", "Its own figures")
    assert "prefetch_count" in page
    assert "None of its tasks has limits" in page
    limit = {"action": "time_limit", "node": "shop@test", "task": task, "back": "workers"}
    assert "time%20limits%20set%20successfully" in site.post("do/workers", hard="90", **limit)
    assert '<td data-label="Hard limit">90' in site.page("workers/shop@test")
    assert "no%20number%20of%20seconds" in site.post("do/workers", hard="soon", **limit)
    assert "celery" in page


def test_a_task_that_only_the_results_know(site: Site, shop: Celery):
    id = uuid.uuid4().hex
    shop.backend.store_result(id, {"sum": 42}, "SUCCESS")
    page = site.page(f"tasks/{id}")
    assert "SUCCESS" in page
    assert "<code>42</code>" in page


def test_what_is_not_known(site: Site):
    for path in ("tasks/none", "queues/none", "nothing"):
        status, _, _ = site.ask("GET", path)
        assert status == 404


def test_a_mistyped_address_leads_on(site: Site):
    for path, status, sentence in (
        ("task", 404, "There is no such page here."),
        ("static/none.js", 404, "There is no such page here."),
        ("do/queues", 405, "Buttons lead here"),
    ):
        found, _, page = site.ask("GET", path)
        assert found == status
        assert sentence in page
        assert 'aria-label="Pages"' in page
    for path in ("tasks/", "queues/"):
        found, headers, _ = site.ask("GET", path)
        assert (found, headers["location"]) == (307, f"../{path.rstrip('/')}")


def test_while_the_broker_is_away_the_history_is_shown(own_redis: RedisServer, tmp_path: Path):
    app = Celeriac("shop", own_redis.url(), own_redis.url(), send_events=True)
    failed = asyncio.Event()

    @app.task(name="shop.pay")
    async def pay() -> None:
        failed.set()
        raise ValueError("no money")

    async def fail(site: Site) -> str:
        async with app, app.worker():
            await asyncio.to_thread(site.shows, "workers", "celeriac@")
            id = (await app.send_task("shop.pay")).id
            await failed.wait()
            await asyncio.to_thread(site.told, id, "FAILURE")
            return id

    with Site(own_redis.url(), tmp_path) as site:
        id = asyncio.run(fail(site))
        own_redis.stop()
        page = site.shows("", "The broker does not answer")
        assert "<dd>?</dd>" in page
        for path in ("tasks", "errors", f"tasks/{id}"):
            assert "shop.pay" in site.page(path)
        status, _, page = site.ask("GET", "queues")
        assert (status, "is not available" in page) == (503, True)
        assert "not%20done" in site.post("do/queues", action="purge", queue="celery", back="queues")
        own_redis.start()
        site.when("", lambda page: "does not answer" not in page, "no trouble")


def test_an_open_page_is_told_of_changes(site: Site, shop: Celery):
    text = uuid.uuid4().hex
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    connection.request("GET", f"/live?path=tasks%3Ftext%3D{text}")
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    shop.send_task("tests.web.shop.fail", [text])
    while text not in response.readline().decode():
        pass
    connection.close()


def test_nothing_leads_out_of_the_dashboard(site: Site):
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        location = site.post("do/tasks", action="none", back=back)
        assert location.startswith("../")
        assert "//" not in location


def test_a_history_in_postgresql(fleet: str, shop: Celery, tmp_path: Path, postgres_url: str):
    text = uuid.uuid4().hex
    with Site(fleet, tmp_path, ["--history", postgres_url]) as site:
        site.shows("workers", "shop@test")
        id = shop.send_task("tests.web.shop.fail", [text]).id
        assert f"ValueError('{text}')" in html.unescape(site.told(id, "FAILURE"))
        assert id in site.page(f"tasks?text={text}&state=FAILURE&since=1h")
        assert "tests.web.shop.fail" in site.page("errors")
        site.post("do/tasks", action="forget", id=id, back="tasks")
        assert id not in site.page(f"tasks?text={text}")
        assert f"forget {id}" in site.page("about")
    assert not (tmp_path / "history.db").exists()
