"""Tasks: what a definition makes, what a call sends."""

import json
import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from celeriac import ArgumentError, Call, Celeriac, ConfigError, Context, Retry, Task, current_context
from celeriac.context import CURRENT
from celeriac.errors import EncodeError
from celeriac.servers.ids import new_id
from celeriac.wire.task import TaskMessage


def add(x: int, y: int = 0) -> int:
    return x + y


async def slow_add(x: int, y: int = 0) -> int:
    return x + y


def nothing() -> None:
    pass


# --- what a definition makes


def test_a_tasks_name_is_its_module_and_function(app):
    assert app.task(add).name == f"{__name__}.add"


def test_a_name_of_its_own(app):
    task = app.task(name="worker.add")(add)
    assert task.name == "worker.add"
    assert app.tasks == {"worker.add": task}


async def test_a_task_can_be_called_as_the_function_it_is(app):
    assert app.task(add)(2, 3) == 5
    assert await app.task(slow_add)(2, y=3) == 5


def test_called_here_a_task_gets_a_context_of_its_own(app):
    @app.task
    def task(ctx: Context, x: int) -> tuple[int, int]:
        ctx.progress(1, 2)
        return ctx.attempt, x

    assert task(7) == (1, 7)


def test_a_bound_task_called_here_gets_its_context_too(app):
    @app.task(bind=True)
    def task(self, x: int) -> tuple[str, int]:
        return self.task, x

    assert task(7) == (task.name, 7)


def test_what_is_said_at_the_definition_is_kept(app):
    policy = Retry(on=(OSError,), max_attempts=5, backoff=2.0)
    task = app.task(retry=policy, timeout=30, queue="slow", delivery="at_most_once")(add)
    assert task.options.retry is policy
    assert (task.options.timeout, task.options.queue, task.options.delivery) == (30, "slow", "at_most_once")
    assert not task.is_coroutine
    assert app.task(slow_add).is_coroutine


@pytest.mark.parametrize(
    "wrong",
    [
        {"retry": True},
        {"timeout": 0},
        {"soft_timeout": "1"},
        {"delivery": "once"},
        {"max_deliveries": 0},
        {"ignore_result": "x"},
        {"queue": ""},
        {"retries": 3},
        {"max_retries": 3},
        {"priority": "x"},
    ],
)
def test_an_option_that_cannot_be_used_is_named(app, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        app.task(**wrong)(add)


def test_an_option_of_celerys_is_told_what_it_is_called_here(app):
    with pytest.raises(ConfigError, match=r"time_limit is an option of Celery's: say timeout="):
        app.task(time_limit=3)(add)


def test_a_generator_is_no_task(app):
    def several():
        yield 1

    async def several_later():
        yield 1

    for function in (several, several_later):
        with pytest.raises(ConfigError, match="return a list"):
            app.task(function)


def test_two_functions_of_one_name_are_refused(app):
    app.task(name="add")(add)
    with pytest.raises(
        ConfigError, match=r"two tasks are named 'add'.*test_task\.py:\d+ and .*test_task\.py:\d+"
    ):
        app.task(name="add")(slow_add)


def test_the_same_function_may_be_registered_again(app):
    assert app.task(name="add")(add).name == app.register("add", add).name


class Mailer:
    def __init__(self, server: str) -> None:
        self.server = server

    def run(self, to: str) -> str:
        return f"{self.server} to {to}"


class Caller:
    async def __call__(self, x: int) -> int:
        return x


def test_an_object_with_a_run_method_is_a_task_that_carries_its_dependencies(app):
    task = app.register("mail.send", Mailer("smtp"))
    assert isinstance(task, Task)
    assert task("ada") == "smtp to ada"
    with pytest.raises(ArgumentError, match=r"mail\.send\(\) is missing the argument 'to'"):
        task.call()


def test_two_objects_of_one_class_are_two_tasks(app):
    one, two = app.register("mail.a", Mailer("a")), app.register("mail.b", Mailer("b"))
    assert (one("x"), two("x")) == ("a to x", "b to x")


async def test_methods_and_callable_objects_are_tasks(app):
    assert app.register("mail.send", Mailer("smtp").run)("ada") == "smtp to ada"
    task = app.register("call", Caller())
    assert task.is_coroutine
    assert await task(3) == 3


@pytest.mark.parametrize("target", [5, Mailer, None])
def test_what_is_no_function_is_no_task(app, target):
    with pytest.raises(ConfigError, match=r"task x: .* is no function"):
        app.register("x", target)


# --- what a call sends


async def test_a_call_without_arguments_sends_an_empty_list_never_null(app, envelopes):
    task = app.task(nothing)
    await task.send()
    await task.using(protocol=1).send()
    await app.send_task("elsewhere.nothing")
    await app.send_task("elsewhere.nothing", None, None)
    two, one, named, nulls = [json.loads(envelope.body) for envelope in await envelopes()]
    for args, kwargs, _ in (two, named, nulls):
        assert (args, kwargs) == ([], {})
    assert (one["args"], one["kwargs"]) == ([], {})


async def test_what_is_sent_is_what_was_called(app, sent):
    result = await app.task(add).send(2, y=3)
    [message] = await sent()
    assert message.task == f"{__name__}.add"
    assert (message.args, message.kwargs) == ([2], {"y": 3})
    assert message.id == message.root_id == result.id
    assert message.parent_id is None
    assert message.protocol == 2


async def test_every_option_arrives(app, sent, envelopes):
    eta = datetime(2033, 1, 1, tzinfo=UTC)
    link = {"task": "then", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    task = app.task(add)
    result = await task.using(
        queue="slow",
        priority=7,
        eta=eta,
        expires=datetime(2034, 1, 1, tzinfo=UTC),
        task_id="my-id",
        headers={"tenant": "t1"},
        ignore_result=True,
        time_limit=20,
        soft_time_limit=10,
        shadow="sum",
        link=link,
        link_error=[link],
        reply_to="answers",
        root_id="root",
        parent_id="parent",
        group_id="group",
        compression="gzip",
    ).send(1)
    [envelope] = await envelopes("slow")
    [message] = await sent("slow")
    assert result.id == message.id == "my-id"
    assert (message.eta, message.expires) == (eta, datetime(2034, 1, 1, tzinfo=UTC))
    assert (message.time_limit, message.soft_time_limit) == (20, 10)
    assert message.headers["tenant"] == "t1"
    assert message.ignore_result is True
    assert message.shadow == "sum"
    assert message.callbacks == [link]
    assert message.errbacks == [link]
    assert (message.root_id, message.parent_id, message.group) == ("root", "parent", "group")
    assert (envelope.priority, envelope.reply_to, envelope.routing_key) == (7, "answers", "slow")
    assert message.compression is not None


async def test_what_follows_may_be_a_signature_or_a_dictionary(app, sent):
    then = app.task(name="then")(add)
    await then.using(link=then.s(5), link_error=[then.si(6), {"task": "alarm"}]).send(1)
    [message] = await sent()
    assert [(link["task"], list(link["args"])) for link in message.callbacks] == [("then", [5])]
    assert [link["task"] for link in message.errbacks] == ["then", "alarm"]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (("",), "task name ''"),
        ((5,), "task name 5"),
        (("x", "abc"), "args='abc': give a list"),
        (("x", 5), "args=5: give a list"),
        (("add", {"x": 1}), "args={'x': 1}: give a list"),
        (("x", [], [1]), "kwargs=[1]: give a mapping"),
    ],
)
async def test_what_cannot_be_a_call_is_not_sent(app, sent, call, problem):
    app.task(name="add")(add)
    with pytest.raises((ConfigError, ArgumentError), match=re.escape(problem)):
        await app.send_task(*call)
    assert await sent() == []


async def test_only_calls_are_sent_together(app, sent):
    task = app.task(add)
    with pytest.raises(ArgumentError, match=r"<Task .*add> is no call: make one with task\.call"):
        await app.send_many([task.call(1), task])
    assert await sent() == []


async def test_countdown_and_expires_count_from_now(app, sent):
    before = datetime.now(UTC)
    await app.task(add).using(countdown=60, expires=90.5).send(1)
    after = datetime.now(UTC)
    [message] = await sent()
    assert before + timedelta(seconds=60) <= message.eta <= after + timedelta(seconds=60)
    assert before + timedelta(seconds=90.5) <= message.expires <= after + timedelta(seconds=90.5)


async def test_a_queue_for_every_call(app, sent):
    task = app.task(queue="usual")(add)
    await task.send(1)
    await task.using(queue="other").send(2)
    await app.send_task(task.name, [3], queue="third")
    assert [message.args for queue in ("usual", "other", "third") for message in await sent(queue)] == [
        [1],
        [2],
        [3],
    ]


async def test_routes_by_name(sent, app):
    routed = Celeriac(
        "shop",
        broker=app.connections().broker,
        backend="memory://",
        routes={f"{__name__}.*": "mine", "mail.*": "mail"},
    )
    await routed.task(add).send(1)
    await routed.send_task("mail.send", ["x"])
    await routed.send_task("else", ["y"])
    await routed.task(name="mail.own", queue="own")(add).send(4)
    found = {
        queue: [message.task for message in await sent(queue)] for queue in ("mine", "mail", "celery", "own")
    }
    assert found == {
        "mine": [f"{__name__}.add"],
        "mail": ["mail.send"],
        "celery": ["else"],
        "own": ["mail.own"],
    }


async def test_using_goes_on_from_using(app, sent):
    await app.task(add).using(queue="slow", priority=1).using(priority=2).send(1)
    [message] = await sent("slow")
    assert message.priority == 2


async def test_the_serializer_of_a_call(envelopes):
    app = Celeriac(broker="memory://", accept_content=("json", "yaml"))
    await app.task(add).using(serializer="yaml").send(1)
    [envelope] = await app.connections().broker.peek("celery")
    assert envelope.content_type == "application/x-yaml"


async def test_many_in_order(app, sent):
    task = app.task(add)
    calls: list[Call[int]] = [task.call(n) for n in range(300)]
    results = await app.send_many([*calls, task.using(task_id="last").call(1), app.call("by.name", [1])])
    messages = await sent()
    assert [message.args for message in messages[:300]] == [[n] for n in range(300)]
    assert [message.id for message in messages] == [result.id for result in results]
    assert results[300].id == "last"
    assert messages[301].task == "by.name"


async def test_wrong_arguments_are_refused_before_anything_is_sent(app, sent):
    task = app.task(add)
    for wrong in (
        lambda: task.send("x"),
        lambda: task.using(queue="q").send(1, 2, 3),
        lambda: app.call(task.name, []),
    ):
        with pytest.raises(ArgumentError):
            await wrong()
    assert await sent() == []


async def test_what_cannot_be_written_is_refused_before_anything_is_sent(app, sent):
    task = app.task(name="any")(lambda x: x)
    with pytest.raises(EncodeError):
        await app.send_many([task.call(1), task.call(object())])
    with pytest.raises(EncodeError):
        await task.send(object())
    assert await sent() == []


async def test_without_strict_arguments_the_worker_has_the_say():
    app = Celeriac(broker="memory://", strict_arguments=False)
    await app.task(add).send("x", 1, 2, 3)
    assert await app.connections().broker.depth("celery") == 1


async def test_the_context_is_not_sent(app, sent):
    @app.task
    async def task(ctx: Context, x: int) -> int:
        return x

    await task.send(5)
    [message] = await sent()
    assert (message.args, message.kwargs) == ([5], {})


def test_ids_are_random_uuids():
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    for text in ids:
        made = uuid.UUID(text)
        assert (str(made), made.version, made.variant) == (text, 4, uuid.RFC_4122)


# --- in a task


async def test_tasks_sent_from_a_task_are_its_children(app, sent):
    task = app.task(add)
    assert current_context() is None
    context = Context(TaskMessage(id="parent", task="t", root_id="root"))
    token = CURRENT.set(context)
    try:
        assert current_context() is context
        one = await task.send(1)
        [two] = await app.send_many([task.call(2)])
    finally:
        CURRENT.reset(token)
    assert [(message.root_id, message.parent_id) for message in await sent()] == [("root", "parent")] * 2
    assert context.children == [[[one.id, None], None], [[two.id, None], None]]


async def test_two_clients_in_one_process_keep_their_tasks_and_messages_apart():
    one, two = Celeriac("one", broker="memory://"), Celeriac("two", broker="memory://")
    one.task(name="add")(add)
    two.task(name="add")(slow_add)
    assert one.tasks["add"].function is add
    assert two.tasks["add"].function is slow_add
    await one.send_task("add", [1])
    assert await one.connections().broker.depth("celery") == 1
    assert await two.connections().broker.depth("celery") == 0
