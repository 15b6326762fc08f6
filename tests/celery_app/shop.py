"""A Celery app as users have them: nothing in it knows of celeriac. Its worker reads its URLs from the environment."""

import asyncio
import json
import multiprocessing
import os
import signal
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import billiard
from celery import Celery, Task, shared_task, signals
from celery.exceptions import Ignore, Reject
from pydantic import BaseModel

loops: set[Any] = set()


def route(name, args, kwargs, options, task=None, **rest):
    """Send what has this argument to a queue of its own, as routers do that look at arguments."""
    return {"queue": f"{app.conf.task_default_queue}-elsewhere"} if "elsewhere" in (args or ()) else None


app = Celery("shop", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("SHOP_BROKER"),
    result_backend=os.environ.get("SHOP_BACKEND"),
    task_default_queue=os.environ.get("SHOP_QUEUE", "shop"),
    result_extended=True,
    task_routes=(route,),
    task_annotations={"tests.celery_app.shop.annotated": {"max_retries": 7, "default_retry_delay": 11}},
    worker_direct="SHOP_DIRECT" in os.environ,
    worker_soft_shutdown_timeout=float(os.environ.get("SHOP_SOFT_SHUTDOWN", "0")),
)


def note(what: str, *facts: Any) -> None:
    """Write down what a hook saw, for the test to read."""
    with Path(os.environ["SHOP_NOTES"]).open("a") as file:
        file.write(json.dumps([what, *facts]) + "\n")


@app.task
def add(x, y):
    return x + y


@shared_task
def multiply(x, y):
    return x * y


@app.task(bind=True)
def annotated(self, *facts):
    return [self.max_retries, self.default_retry_delay]


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True)
def request(self):
    asked = self.request
    names = (
        "id",
        "root_id",
        "parent_id",
        "retries",
        "hostname",
        "headers",
        "delivery_info",
        "origin",
        "properties",
        "argsrepr",
        "kwargsrepr",
        "compression",
    )
    process = multiprocessing.current_process().name, billiard.current_process().name
    own = {"kwargs": asked.kwargs, "args": repr(asked.args), "process": process}
    return {name: getattr(asked, name, None) for name in names} | own


@app.task(bind=True, max_retries=3)
def flaky(self, until):
    if self.request.retries < until:
        raise self.retry(countdown=0.01, exc=ValueError(f"not before {until}"))
    return self.request.retries


@app.task(autoretry_for=(KeyError,), default_retry_delay=0.01, max_retries=2)
def autoretried(key):
    raise KeyError(key)


@app.task(bind=True, max_retries=2)
def retried_twice_over(self):
    """Ask for a retry without ending by it, as ``throw=False`` allows."""
    if not self.request.retries:
        self.retry(countdown=0, throw=False)
        return "first"
    return "second"


@app.task(bind=True)
def progress(self, go_on: str):
    self.update_state(state="PROGRESS", meta={"done": 1})
    deadline = time.monotonic() + 60
    while not Path(go_on).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return "done"


@app.task
def fail(text="as asked"):
    raise RuntimeError(text)


@app.task(throws=(LookupError,))
def fail_as_expected():
    raise LookupError("expected")


@app.task(ignore_result=True)
def forgotten():
    note("forgotten")
    return 1


@app.task(bind=True)
def replaced(self, x):
    raise self.replace(add.s(x, 10) | multiply.s(2))


@app.task(bind=True)
def joined(self, x):
    self.add_to_chord(add.s(x, 100))
    return x


@app.task
def ignored():
    raise Ignore


@app.task
def rejected():
    raise Reject("no use", requeue=False)


@app.task
def call_back(failed, error, traceback):
    note("errback", failed.id, repr(error), bool(traceback))


@app.task
def told(task_id):
    note("told", task_id)


@app.task
def not_json():
    return object()


@app.task
def parent():
    return add.delay(1, 1).id


class Hooked(Task):
    """Notes in its hooks what the result store says, and in which thread."""

    def note(self, hook, task_id, *facts):
        same = threading.get_ident() == self.request.thread if hasattr(self.request, "thread") else None
        note(hook, self.AsyncResult(task_id).state, same, *facts)

    def before_start(self, task_id, args, kwargs):
        self.request.thread = threading.get_ident()
        note("before_start")

    def on_success(self, retval, task_id, args, kwargs):
        self.note("on_success", task_id, retval)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        self.note("on_failure", task_id, repr(exc))

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.note("on_retry", task_id)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self.note("after_return", task_id, status)


@app.task(base=Hooked, bind=True)
def hooked(self, how):
    if how == "fail":
        raise ValueError(1)
    if how == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    return 7


class Tenant(Task):
    """Puts a header on every message, as applications with several tenants do."""

    def apply_async(self, *args, **kwargs):
        kwargs["headers"] = {**(kwargs.get("headers") or {}), "tenant": "blue"}
        return super().apply_async(*args, **kwargs)


@app.task(base=Tenant, bind=True, max_retries=1)
def tenant(self, value=None):
    if value == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    return self.request.headers["tenant"]


class Counting(Task):
    """Counts its calls, in a ``__call__`` of its own."""

    calls = 0

    def __call__(self, *args, **kwargs):
        type(self).calls += 1
        return super().__call__(*args, **kwargs)


@app.task(base=Counting)
def counted(x):
    return x + 1


@app.task(bind=True, max_retries=1)
async def awaited(self, seconds):
    await asyncio.sleep(seconds)
    if not self.request.retries:
        raise self.retry(countdown=0)
    return self.request.id


@app.task(bind=True)
async def on_the_loop(self, seconds):
    """Return the request before and after a wait, and how many loops this process has run this on so far."""
    before = self.request.id
    await asyncio.sleep(seconds)
    loops.add(asyncio.get_running_loop())
    return [before, self.request.id, len(loops)]


@app.task(bind=True, autoretry_for=(LookupError,), max_retries=1, retry_backoff=False, default_retry_delay=0)
async def retried_by_itself(self):
    await asyncio.sleep(0)
    if not self.request.retries:
        raise LookupError
    return self.request.retries


class Order(BaseModel):
    number: int
    due: datetime


@app.task(pydantic=True)
async def modelled(order: Order, days: int) -> Order | None:
    await asyncio.sleep(0)
    return Order(number=order.number + 1, due=order.due + timedelta(days=days)) if days else None


@app.task
async def awaited_inside():
    """Apply a coroutine task here and now."""
    return awaited_plainly.apply((2,)).result


@app.task
async def awaited_plainly(x):
    await asyncio.sleep(0)
    return x * 2


@app.task
def runs_a_loop(x):
    """Run a loop of its own, as tasks do that use an asyncio library; tell whether this is the main thread."""

    async def double():
        await asyncio.sleep(0)
        return x * 2

    return [asyncio.run(double()), threading.current_thread() is threading.main_thread()]


@app.task(soft_time_limit=0.3)
async def too_long(note_that):
    try:
        await asyncio.sleep(60)
    finally:
        note("cancelled", note_that)


@app.task
async def exits():
    await asyncio.sleep(0)
    raise SystemExit(3)


@app.task(bind=True)
def applied_inside(self):
    """Run another task here and now, and this one's function directly."""
    return [add.apply((1, 2)).result, add(3, 4), self.request.id]


@app.task
def numbered(directory, children):
    """Return the number and the id of this process once so many processes are here."""
    number, here = billiard.current_process().index, Path(directory)
    here.mkdir(exist_ok=True)
    (here / str(os.getpid())).touch()
    deadline = time.monotonic() + 30
    while len(list(here.iterdir())) < children and time.monotonic() < deadline:
        time.sleep(0.01)
    print(f"printed by {number}")
    return [number, os.getpid()]


@app.task(base=Hooked, bind=True)
def sleep(self, seconds):
    """Sleep in small steps, so that a soft time limit finds it in threads too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)


@app.task
def leave():
    raise SystemExit(3)


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once(mark):
    """Kill its process the first time."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@app.task(bind=True, acks_late=True)
def late(self):
    return self.request.delivery_info["redelivered"]


@app.task
def die():
    os.kill(os.getpid(), signal.SIGKILL)


def watch_signals():
    """Note every signal about a task, with what it is about."""
    for name in (
        "task_prerun",
        "task_postrun",
        "task_success",
        "task_failure",
        "task_retry",
        "task_received",
    ):
        sent = getattr(signals, name)

        def receive(sender=None, task_id=None, request=None, _name=name, **facts):
            subject = task_id or getattr(request, "id", None) or sender.request.id
            stored = app.AsyncResult(subject).state if _name != "task_received" else None
            told = str(facts["einfo"]) if _name == "task_failure" else None
            traceback = type(facts.get("traceback")).__name__
            note(_name, subject, facts.get("state"), stored, threading.get_ident(), told, traceback)

        sent.connect(receive, weak=False)

    def revoked(request, terminated, signum, expired, **facts):
        note("task_revoked", request.id, terminated, signum, expired)

    signals.task_revoked.connect(revoked, weak=False)


def watch_worker():
    """Note every signal about the worker."""
    for name in (
        "celeryd_init", "worker_init", "celeryd_after_setup", "worker_process_init", "worker_ready",
        "worker_shutting_down", "worker_shutdown", "worker_process_shutdown", "worker_before_create_process",
        "heartbeat_sent", "beat_init", "beat_embedded_init",
    ):  # fmt: skip

        def receive(sender=None, _name=name, **facts):
            note(_name, str(sender), os.getpid(), facts.get("sig"), facts.get("how"), facts.get("exitcode"))

        getattr(signals, name).connect(receive, weak=False)


if os.environ.get("SHOP_SIGNALS"):
    watch_signals()
if os.environ.get("SHOP_NOTES"):
    watch_worker()
