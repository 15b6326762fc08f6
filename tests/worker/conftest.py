"""Whole workers on every broker."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from celeriac import Celeriac


@pytest.fixture(params=["memory", "sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a broker and result store."""
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        return url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db"


@pytest.fixture
async def app(place: str, unique: Callable[[str], str]) -> AsyncIterator[Celeriac]:
    """An app with a default queue, and key prefix, of its own."""
    prefix = unique("test")
    async with Celeriac(
        "worker-test", broker=place, backend=place, default_queue=prefix, key_prefix=f"{prefix}:"
    ) as made:
        yield made
