"""Ids of tasks that PostgreSQL cannot keep a result under."""

import logging
import random
import string

import pytest

from celeriac import Celeriac, chain, group
from celeriac.errors import EncodeError
from celeriac.wire.envelope import Envelope, Route

LONG, NUL = "x" * 156, "a\0b"


def fail() -> None:
    raise ZeroDivisionError


def sum_of(xs: list[int]) -> int:
    return sum(xs)


def random_text(length: int) -> str:
    """Text that cannot be compressed, so that no index has room for it."""
    return "".join(random.Random(1).choices(string.ascii_letters, k=length))


@pytest.fixture
def ran() -> list[int]:
    """What the task was called with."""
    return []


@pytest.fixture
def make_app(ran):
    def make_app(url: str, backend: str | None = None) -> Celeriac:
        app = Celeriac("shop", url, backend)

        @app.task(name="note")
        async def note(number: int) -> int:
            ran.append(number)
            return number

        @app.task(name="whisper", ignore_result=True)
        async def whisper(number: int) -> None:
            ran.append(number)

        return app

    return make_app


@pytest.mark.parametrize(("task_id", "reason"), [(LONG, "155"), (NUL, "NUL")])
async def test_it_is_refused_by_send(postgres_url, make_app, task_id, reason):
    async with make_app(postgres_url) as app:
        with pytest.raises(EncodeError, match=rf"task id .*{reason}.*; send the task under"):
            await app.send_task("note", [1], task_id=task_id)
        assert await app.connections().broker.depth("celery") == 0
        await app.send_task("whisper", [1], task_id=task_id, ignore_result=True)
        assert await app.connections().broker.depth("celery") == 1


async def test_a_message_that_has_one_does_not_run_and_is_a_dead_letter_that_says_why(
    postgres_url, make_app, ran, caplog
):
    # Another app has results elsewhere, and sends what it likes.
    async with make_app(postgres_url, "disabled://") as other, make_app(postgres_url) as app:
        for number, task_id in enumerate((LONG, NUL)):
            await other.send_task("note", [number], task_id=task_id)
        await other.send_task("whisper", [7], task_id=LONG, ignore_result=True)
        sound = await app.send_task("note", [42])
        broker = app.connections().broker
        with caplog.at_level(logging.INFO, "celeriac"):
            async with app.worker(concurrency=1):
                assert await sound.wait(timeout=60) == 42
                while await broker.depth("celery"):
                    pass
        assert ran == [7, 42]
        letters = await broker.dead.list()
        assert len(letters) == 2
        assert "155" in letters[0].reason
        assert "NUL" in letters[1].reason
        assert "Traceback" not in caplog.text


@pytest.mark.parametrize("task_id", [LONG, NUL])
async def test_a_workflow_that_brings_one_is_refused(postgres_url, make_app, task_id):
    async with make_app(postgres_url) as app:
        note, whisper = app.tasks["note"], app.tasks["whisper"]
        later = note.si(2).set(task_id=task_id)
        for workflow in (chain(note.si(1), later), group(note.si(1), later), group([later]) | note.si(3)):
            with pytest.raises(EncodeError, match="send the task under"):
                await app.send(workflow)
        assert await app.connections().broker.depth("celery") == 0
        await app.send(chain(note.si(1), whisper.si(2).set(task_id=task_id)))
        assert await app.connections().broker.depth("celery") == 1


async def test_a_later_step_that_has_one_costs_nobody_else_the_news(postgres_url, make_app):
    """A step fails: its caller learns that, and so do those of all other steps."""
    async with make_app(postgres_url, "disabled://") as other, make_app(postgres_url) as app:
        app.register("fail", fail)
        other.register("fail", fail)
        note = other.tasks["note"]
        steps = [note.si(1).set(task_id=LONG), note.si(2).set(task_id=NUL), note.si(3).set(task_id="last")]
        await other.send(chain(other.tasks["fail"].si().set(task_id="first"), *steps))
        async with app.worker(concurrency=1):
            for task_id in ("first", "last"):
                with pytest.raises(ZeroDivisionError):
                    await app.result(task_id).wait(timeout=60)
            broker = app.connections().broker
            while await broker.depth("celery"):
                pass
        assert await broker.dead.list() == []


@pytest.mark.parametrize("task_id", [random_text(4000), NUL])
async def test_a_part_of_a_chord_that_has_one_is_counted(postgres_url, make_app, task_id):
    """Nobody wants the results of the parts, so they run; and the chord gets their values."""
    async with make_app(postgres_url) as app:
        app.register("sum", sum_of)
        parts = [app.tasks["note"].s(number).set(ignore_result=True) for number in (40, 2)]
        parts[1] = parts[1].set(task_id=task_id)
        sent = await app.send(group(parts) | app.tasks["sum"].s())
        async with app.worker(concurrency=1):
            assert await sent.wait(timeout=60) == 42


@pytest.mark.parametrize("task_id", [random_text(4000), NUL])
async def test_what_follows_a_task_that_has_one_is_sent_once(postgres_url, make_app, ran, tmp_path, task_id):
    """Results elsewhere: what follows is published under a key that names the task."""
    async with make_app(postgres_url, f"sqlite:///{tmp_path}/results.db") as app:
        note = app.tasks["note"]
        sent = await app.send(chain(note.si(1).set(task_id=task_id), note.si(2)))
        async with app.worker(concurrency=1):
            assert await sent.wait(timeout=60) == 2
        assert ran == [1, 2]
        broker = app.connections().broker
        message = (Envelope(body=b""), Route("celery", queue="celery"))
        assert await broker.publish_once(task_id, [message])
        assert not await broker.publish_once(task_id, [message])
