"""The path of one message through a worker: as short as it was made, and with every hop of CONTRIBUTING's table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent
MOST_FILES, MOST_FUNCTIONS = 43, 109
"""A change that needs more makes the path longer: it says why, or takes another layer away."""


@pytest.fixture
def passed(own_redis: RedisServer) -> list[tuple[str, str]]:
    """Files and names of the functions that one message passes."""
    command = (sys.executable, "-m", "bench.path", own_redis.url(), "-v")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]
    return [(file.strip(), name) for file, _, name in (line.partition(": ") for line in lines)]


def test_the_path_is_short_and_contributing_tells_its_hops(passed: list[tuple[str, str]]) -> None:
    files = {file for file, _ in passed}
    assert len(files) <= MOST_FILES, sorted(files)
    assert len(passed) <= MOST_FUNCTIONS, passed
    table = re.findall(r"^\| \d+ \| `([^`]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(table) >= 7
    assert set(table) <= files
