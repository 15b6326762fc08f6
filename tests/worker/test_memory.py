"""Memory stays flat, however many tasks and results go through."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TASKS = 50_000
FEW = 4
"""Parts that are looked at together: what one leaves behind the next may use, so the highest of some is flat."""
MORE_BYTES, MORE_BLOCKS = 2 * 1024 * 1024, 3000
"""What 30,000 tasks may add: 70 bytes a task, or one object of Python's that is left by every tenth."""


@pytest.mark.timeout(600)
def test_50_000_tasks_and_results_leave_memory_as_it_was(redis_url: str, unique: Callable[[str], str]):
    # In a process of its own: what other tests left in this one's memory is moved about meanwhile.
    command = [sys.executable, "-m", "tests.worker.flat_memory", redis_url, unique("flat"), str(TASKS)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    seen = [tuple(map(int, line.split())) for line in printed.stdout.splitlines()]
    assert len(seen) == 20
    resident, blocks = zip(*seen, strict=True)
    assert grown(resident) < MORE_BYTES, f"memory grew by {grown(resident) / 1e6:.1f} MB: {resident}"
    assert grown(blocks) < MORE_BLOCKS, f"there are {grown(blocks)} more objects: {blocks}"


def grown(sizes: Sequence[int]) -> int:
    """By how much the last ones are larger than those after the first few."""
    return max(sizes[-FEW:]) - max(sizes[FEW : 2 * FEW])
