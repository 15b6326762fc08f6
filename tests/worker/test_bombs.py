"""A message or a result of kilobytes that would be gigabytes is refused by worker and client, which go on."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["redis", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bombs.db"
    return str(request.getfixturevalue("redis_url" if request.param == "redis" else "postgres_url"))


async def test_bombs_of_every_codec_are_refused_within_little_memory(
    place: str, unique: Callable[[str], str]
):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.worker.bombs", place, unique("bombs"), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    found = json.loads(out)
    refusals = {"MalformedMessage", "ContentRefused"}
    assert {name: said for name, said in found["said"].items() if said not in refusals} == {}
    assert len(found["said"]) == (29 if place.startswith("redis") else 3)
    assert found["alive"] == "'alive'"
