"""Every guarantee names a test, and the test is there."""

import asyncio
import re

import pytest

from celeriac import Celeriac
from celeriac.contracts.backend import EncodedResult
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.results import MemoryBackend
from celeriac.wire.content import Codecs
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "explanation" / "delivery-guarantees.md").read_text()
GUARANTEES = re.findall(r"^\| ([^|]+\.) \| ([^|]+) \|$", PAGE, re.MULTILINE)


def known_tests() -> set[str]:
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "src/celeriac/testing").glob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files}
    for file in files:
        found |= set(re.findall(r"^\s*(?:async )?(?:def|class) (\w+)", file.read_text(), re.MULTILINE))
    return found


def test_there_are_guarantees():
    assert len(GUARANTEES) > 15


@pytest.mark.parametrize(("sentence", "shown_by"), GUARANTEES)
def test_a_guarantee_is_shown_by_a_test(sentence: str, shown_by: str):
    names = re.findall(r"`([^`]+)`", shown_by)
    assert names, sentence
    assert set(names) <= known_tests()


async def test_a_message_is_acknowledged_after_its_result_is_stored():
    broker, backend = MemoryBroker(), SlowBackend(Codecs())
    app = Celeriac("guarantee", broker, backend)
    hello = app.register("hello", lambda: "hello")
    async with app.worker():
        result = await hello.send()
        await backend.storing.wait()
        assert broker._lines._held
        backend.go_on.set()
        assert await result.wait(timeout=60) == "hello"
    assert not broker._lines._held


class SlowBackend(MemoryBackend):
    """Stores when it is told to."""

    def __init__(self, codecs: Codecs) -> None:
        super().__init__(codecs)
        self.storing = asyncio.Event()
        self.go_on = asyncio.Event()

    async def store(self, encoded: EncodedResult) -> None:
        self.storing.set()
        await self.go_on.wait()
        await super().store(encoded)
