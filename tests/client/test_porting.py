"""What those read who write Celery's names on celeriac's own objects."""

from __future__ import annotations

import asyncio
import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import celery
import pytest
from celery.app.task import Context as CeleryRequest
from celery.canvas import Signature as CelerySignature
from celery.result import AsyncResult, GroupResult

import celeriac
from celeriac import Celeriac, Context, chain
from celeriac.client.result import Result
from celeriac.porting import APP, CONTEXT, MODULE, RESULT, SIGNATURE, TASK
from celeriac.wire.task import TaskMessage

MEMORY = {"broker": "memory://", "backend": "memory://"}
app = Celeriac("ported", **MEMORY)


@app.task
def add(x: int, y: int) -> int:
    return x + y


def context() -> Context:
    return Context(TaskMessage(id="1", task="add"))


def refusal(read: Callable[[], Any]) -> str:
    with pytest.raises(AttributeError) as caught:
        read()
    return str(caught.value)


@pytest.mark.parametrize(
    ("read", "instead"),
    [
        (lambda: app.conf.update, "app.settings to read"),
        (lambda: app.config_from_object("conf"), "Celeriac(name, broker, backend, ...)"),
        (lambda: app.AsyncResult("id"), "app.result(task_id)"),
        (lambda: app.autodiscover_tasks(["shop"]), "import lines"),
        (lambda: app.result("1").status, "result.state"),
        (lambda: app.result("1").result, "result.get()"),
        (lambda: add.request.id, "a parameter ctx: Context"),
        (lambda: add.retry(countdown=3), "ctx.retry(...)"),
        (lambda: add.apply((1, 2)), "app.testing()"),
        (lambda: context().request.id, "the context itself"),
        (lambda: add.s(1, 2).apply_async(countdown=3), ".set(...).delay()"),
        (lambda: chain(add.s(1, 2), add.s(3)).apply_async(), ".set(...).delay()"),
        (lambda: celeriac.shared_task, "@app.task"),
        (lambda: celeriac.Celery, "celeriac.Celeriac"),
    ],
)
def test_a_name_of_celerys_says_what_to_write(read: Callable[[], Any], instead: str) -> None:
    said = refusal(read)
    assert "that is Celery's name: write " in said
    assert instead in said
    assert said.endswith("(see docs/how-to/move-a-celery-app.md)")


def test_a_name_that_nobody_has_is_as_ever() -> None:
    assert refusal(lambda: app.nonsense) == "'Celeriac' object has no attribute 'nonsense'"
    assert refusal(lambda: add.nonsense) == "'FunctionTask' object has no attribute 'nonsense'"
    assert refusal(lambda: celeriac.nonsense) == "module 'celeriac' has no 'nonsense'"


def test_only_names_that_celery_has_and_celeriac_has_not_are_explained() -> None:
    """A table that explains a name which exists, or which Celery never had, would never be read."""
    celerys = celery.Celery("x", set_as_current=False, broker="memory://")

    @celerys.task(autoretry_for=(OSError,))
    def task() -> None: ...

    pairs: list[tuple[Any, list[Any], Any]] = [
        (app, [celerys], APP),
        (add, [task], TASK),
        (Result("1", None), [AsyncResult("1", app=celerys), GroupResult("1", [])], RESULT),  # type: ignore[arg-type]
        (context(), [CeleryRequest({}), task], CONTEXT),
        (add.s(1), [CelerySignature("x", app=celerys), celery.chain(), celery.group()], SIGNATURE),
        (celeriac, [celery], MODULE),
    ]
    for ours, theirs, names in pairs:
        assert not [name for name in names if hasattr(ours, name)]
        unknown = {
            name
            for name in names
            if not any(name in dir(one) for one in theirs) and not hasattr(celery, name)
        }
        assert unknown <= {"delay_on_commit", "apply_async_on_commit"}  # tasks have these with Django


@pytest.mark.parametrize(
    ("given", "instead"),
    [("exc", "cause="), ("max_retries", "max_attempts="), ("eta", "countdown="), ("throw", "nothing")],
)
def test_celerys_arguments_of_retry(given: str, instead: str) -> None:
    with pytest.raises(TypeError, match=f"takes no {given}=; in its place write {instead}"):
        context().retry(**{given: 1})  # type: ignore[arg-type]


def test_the_error_of_a_property_is_not_hidden() -> None:
    class Own(Celeriac):
        @property
        def broken(self) -> str:
            return self.nothing_of_this_name

    assert (
        refusal(lambda: Own("own", **MEMORY).broken) == "'Own' object has no attribute 'nothing_of_this_name'"
    )


def test_a_name_that_is_explained_is_not_listed() -> None:
    assert not set(TASK) & set(dir(add))
    assert "apply_async" in dir(add)


def test_objects_are_copied_and_pickled_as_before() -> None:
    signature = add.s(1, 2)
    assert copy.copy(signature) == signature
    assert copy.deepcopy(signature.to_dict()) == signature.to_dict()
    assert pickle.loads(pickle.dumps(add)) is add
    assert not asyncio.iscoroutinefunction(add)


def test_send_task_without_await_is_noticed() -> None:
    with pytest.warns(
        RuntimeWarning, match=r"nothing was sent: write await app.send_task\('add', ...\), or app.delay"
    ):
        app.send_task("add", [1, 2])
    sending = app.send_task("add", [1, 2])
    assert "there is no 'get' yet, since nothing was sent" in refusal(lambda: sending.get(3))  # type: ignore[attr-defined]
    sending.close()


async def test_send_task_is_a_coroutine_to_asyncio() -> None:
    own = Celeriac("ported", **MEMORY)
    async with own:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results = await asyncio.gather(
                own.send_task("add", [1, 2]), asyncio.create_task(own.send_task("add"))
            )
            results.append(await asyncio.wait_for(own.send_task("add"), 5))
        assert len({result.id for result in results}) == 3
