"""Ids of tasks that PostgreSQL cannot keep a result under."""

import logging

import pytest

from celeriac import Celeriac
from celeriac.errors import EncodeError

LONG, NUL = "x" * 156, "a\0b"


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
                assert await sound.wait(timeout=30) == 42
                while await broker.depth("celery"):
                    pass
        assert ran == [7, 42]
        letters = await broker.dead.list()
        assert len(letters) == 2
        assert "155" in letters[0].reason
        assert "NUL" in letters[1].reason
        assert "Traceback" not in caplog.text
