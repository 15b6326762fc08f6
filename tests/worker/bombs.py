"""Run as a process that may have little memory: bombs of every codec as messages and as results, on Redis or in tables.

Prints a line of JSON: what became of each, whether a task runs afterwards, and what the process took.
"""

import asyncio
import bz2
import json
import logging
import lzma
import resource
import sqlite3
import sys
import uuid
import zlib
from typing import Any

import brotli
import psycopg
import zstandard

import redis
from celeriac import Celeriac
from celeriac.wire.content import SERIALIZERS
from celeriac.wire.envelope import Envelope, Route

LIMIT = 700 * 1024 * 1024
GROWN = 17 * 1024 * 1024

PACK = {
    "application/x-gzip": lambda body: zlib.compress(body, 1),
    # Of a run it makes a bomb in no time, of anything else that repeats itself in seconds.
    "application/x-bz2": lambda body: bz2.compress(b"[" + b" " * len(body) + b"]"),
    "application/x-lzma": lambda body: lzma.compress(body, preset=0),
    "application/x-brotli": lambda body: brotli.compress(body, quality=1),
    "application/zstd": zstandard.ZstdCompressor().compress,
}
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
PLAIN = {
    "json, deep": (SERIALIZERS["json"], b"[" * 200_000),
    "json, a long number": (SERIALIZERS["json"], b"[" + b"9" * 2_000_000 + b"]"),
    "yaml, deep": (SERIALIZERS["yaml"], b"[" * 200_000),
    "yaml, deep blocks": (SERIALIZERS["yaml"], b"- " * 50_000 + b"x"),
    "yaml, aliases": (SERIALIZERS["yaml"], LAUGHS.encode()),
    "yaml, a number in base 60": (SERIALIZERS["yaml"], b"1" + b":1" * 100_000),
    "msgpack, deep": (SERIALIZERS["msgpack"], b"\x91" * 200_000),
    "msgpack, long": (SERIALIZERS["msgpack"], b"\xdd\xff\xff\xff\xff"),
}
SHARED = b"\x80\x04}N\x85\x94" + b"".join(b"h%c\x86\x94" % place for place in range(80)) + b"K\x01s."
PICKLES = {
    "pickle, a high place in the memo": b"\x80\x04Nr" + (2**31).to_bytes(4, "little") + b".",
    "pickle, tuples of tuples for a key": SHARED,
    "pickle, long": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
}


def lists(form: str) -> bytes:
    """Many empty lists, as the body of a message or as a record."""
    inner = (b"[]," * (GROWN // 3))[:-1]
    return (
        b"[[" + inner + b"], {}, {}]"
        if form == "message"
        else b'{"status":"SUCCESS","result":[' + inner + b"]}"
    )


def message(content_type: str, body: bytes, compression: str | None = None) -> Envelope:
    task_id = str(uuid.uuid4())
    headers = {"task": "ok", "id": task_id} | ({"compression": compression} if compression else {})
    return Envelope(
        body=body,
        content_type=content_type,
        content_encoding="utf-8",
        headers=headers,
        correlation_id=task_id,
    )


def messages() -> dict[str, Envelope]:
    grown = lists("message")
    packed = {mime: message(SERIALIZERS["json"], pack(grown), mime) for mime, pack in PACK.items()}
    return packed | {name: message(*content) for name, content in PLAIN.items()}


def records() -> dict[str, bytes]:
    grown = lists("record")
    packed = {
        mime: b"\0celery-compressed\0" + mime.encode() + b"\0" + pack(grown) for mime, pack in PACK.items()
    }
    return packed | {name: body for name, (_, body) in PLAIN.items()} | PICKLES


def put(place: str, task_id: str, record: bytes) -> None:
    """Store a record as another writer would."""
    if place.startswith("redis"):
        with redis.Redis.from_url(place) as client:
            client.set(f"celery-task-meta-{task_id}", record, ex=600)
        return
    if place.startswith("postgresql"):
        address, _, schema = place.partition("?schema=")
        with psycopg.connect(address, options=f"-c search_path={schema}", autocommit=True) as rows:
            rows.execute(
                "INSERT INTO celery_taskmeta (id, task_id, status, result) "
                "VALUES (nextval('task_id_sequence'), %s, 'SUCCESS', %s)",
                [task_id, record],
            )
        return
    connection = sqlite3.connect(place.removeprefix("sqlite:///"))
    with connection:
        connection.execute(
            "INSERT INTO celery_taskmeta (task_id, status, result) VALUES (?, 'SUCCESS', ?)",
            (task_id, record),
        )
    connection.close()


async def told(waiting: Any) -> str:
    try:
        return repr(await waiting)
    except Exception as error:
        return type(error).__name__


async def main(place: str, queue: str) -> None:
    app = Celeriac(
        "bombs", broker=place, backend=place, default_queue=queue, accept_content=("json", "yaml", "msgpack")
    )

    @app.task(name="ok")
    async def ok() -> str:
        return "alive"

    said: dict[str, str] = {}
    gap = 0.0

    async def beat() -> None:
        nonlocal gap
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            gap = max(gap, loop.time() - before)

    # The codecs are the same everywhere; pickles are looked into in tables alone.
    redis_too = place.startswith("redis")
    sent, stored = (messages(), records()) if redis_too else ({}, PICKLES)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    async with app, app.worker() as worker:
        await worker.ready()
        beating = asyncio.create_task(beat())
        assert await (await ok.send()).wait(timeout=60) == "alive"
        for name, envelope in sent.items():
            await app.connections().broker.publish(envelope, Route(queue, queue=queue))
            said["message: " + name] = await told(app.result(envelope.headers["id"]).wait(timeout=60))
        for name, record in stored.items():
            task_id = str(uuid.uuid4())
            put(place, task_id, record)
            said["result: " + name] = await told(app.result(task_id).wait(timeout=60))
        alive = await told((await ok.send()).wait(timeout=60))
        beating.cancel()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"said": said, "alive": alive, "gap": gap, "peak": peak}))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(main(*sys.argv[1:]))
