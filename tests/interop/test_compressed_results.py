"""Celery's `result_compression`: a chord whose parts run on both kinds of worker."""

from celeriac import chord
from tests.interop.celeriac_side import make_app
from tests.interop.celery_worker import CeleryWorker


async def test_the_parts_of_a_chord_are_read_though_celery_compressed_some(
    interop_url: str, queue: str
) -> None:
    app = make_app(interop_url, interop_url)
    with CeleryWorker(interop_url, environment={"INTEROP_RESULT_COMPRESSION": "gzip"}) as theirs:
        async with app, app.worker(queues=[queue], concurrency=2):
            first = app.signature("interop.add", 1, 1).set(queue=theirs.queue)
            # It ends last, and whoever ends last reads all parts and sends the body.
            last = app.signature("interop.add", 2, 2).set(queue=queue, countdown=1)
            body = app.signature("interop.echo").set(queue=queue)
            assert await (await chord([first, last], body).send()).wait(timeout=60) == [[[2, 4]], {}]
